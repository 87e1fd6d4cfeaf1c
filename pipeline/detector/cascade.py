"""Scores images' proposals in batches, best first, until further ones bring no detection.

A batch brings a detection if one of its boxes is among the image's detections, after NMS among everything
that was scored so far. A box that takes the place of an earlier one counts too, since its score is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.batch_preparation import PreparedBatch
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.head_outputs import HeadOutputs, join_outputs
from pipeline.detector.host_transfer import move_array

ScoreFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
"""RoIs `(U, 5)` of a batch to their scores `(U, K + 1)` and deltas `(U, K + 1, 4)`."""


class ScoredBatch:
    """Images that went through the trunk together, whose RoIs go through the head a few at a time."""

    def __init__(self, batch: PreparedBatch, score: ScoreFunction) -> None:
        """Score nothing yet.

        Args:
            batch: images of one shape and their RoIs.
            score: the head, on the features of these images.
        """
        self._batch, self._score = batch, score
        self._index = batch.unique_index.numpy()
        # RoIs are distinct in the order of images and ranks: those of an image's first proposals are a range.
        self._reach = np.maximum.accumulate(self._index) + 1
        counts = [len(at_level.rows) for at_level in batch.rois_by_image]
        self._first_row = np.concatenate([[0], np.cumsum(counts)])
        self._scored = [int(self._index[row]) for row in self._first_row[:-1]]
        self._outputs: tuple[Tensor, Tensor] | None = None

    def score_until(self, ends: Mapping[int, int]) -> None:
        """Score the proposals of ranks below `ends[image_index]`, those that are not scored yet."""
        ranges = []
        for position, at_level in enumerate(self._batch.rois_by_image):
            count = self._count_rows(position, ends.get(at_level.image_index, 0))
            if count:
                end = int(self._reach[self._first_row[position] + count - 1])
                ranges.append(np.arange(self._scored[position], end))
                self._scored[position] = max(self._scored[position], end)
        chosen = np.concatenate(ranges) if ranges else np.zeros(0, np.int64)
        if not len(chosen):
            return
        unique = self._batch.unique
        rois = unique[torch.from_numpy(chosen)]
        scores, deltas = self._score(rois.pin_memory() if unique.is_pinned() else rois)
        if self._outputs is None:
            count = len(unique)
            self._outputs = (
                scores.new_empty((count, *scores.shape[1:])),
                deltas.new_empty((count, *deltas.shape[1:])),
            )
        rows = move_array(chosen, scores.device)
        self._outputs[0][rows], self._outputs[1][rows] = scores, deltas

    def gather(self, image_index: int, end: int) -> HeadOutputs | None:
        """The outputs of an image's proposals of ranks below `end`; None if this batch has none of them."""
        for position, at_level in enumerate(self._batch.rois_by_image):
            if at_level.image_index == image_index:
                count = self._count_rows(position, end)
                if not count or self._outputs is None:
                    return None
                first = self._first_row[position]
                own = np.ascontiguousarray(self._index[first : first + count])
                rows = move_array(own, self._outputs[0].device)
                scores, deltas = self._outputs
                return HeadOutputs(at_level.rows[:count], scores[rows], deltas[rows])
        return None

    def _count_rows(self, position: int, end: int) -> int:
        return int(np.searchsorted(self._batch.rois_by_image[position].rows, end))


class StepDetections(NamedTuple):
    """The detections among an image's proposals that are scored so far."""

    scores: NDArray[np.float32]
    """`(D,)`."""
    rows: NDArray[np.intp]
    """`(D,)`: the ranks of their proposals."""


@dataclass
class _Progress:
    count: int
    scored: int = 0
    idle: int = 0
    """Batches in a row that brought no detection."""


def score_in_steps(
    batches: Sequence[ScoredBatch],
    counts: Mapping[int, int],
    settings: CascadeSettings,
    least_score: float,
    detect: Callable[[int, Tensor, Tensor], StepDetections],
) -> dict[int, int]:
    """Score the proposals of images batch by batch, until `stop_after` batches of an image bring nothing.

    Args:
        batches: of all scales; an image's RoIs may be in several.
        counts: number of proposals of each image, by its index.
        settings: with `stop_after`.
        least_score: of a detection that counts.
        detect: selects an image's detections from scores `(M, K + 1)` and deltas `(M, K + 1, 4)` of its
            first M proposals; its last call for an image has everything that was scored.

    Returns:
        How many proposals of each image were scored.
    """
    assert settings.stop_after is not None
    progress = {index: _Progress(count) for index, count in counts.items()}
    while True:
        ends = {
            index: min(image.scored + settings.stop_batch, image.count)
            for index, image in progress.items()
            if image.scored < image.count and image.idle < settings.stop_after
        }
        if not ends:
            return {index: image.scored for index, image in progress.items()}
        for batch in batches:
            batch.score_until(ends)
        for index, end in ends.items():
            image = progress[index]
            parts = (batch.gather(index, end) for batch in batches)
            detections = detect(index, *join_outputs([part for part in parts if part is not None]))
            is_new = detections.rows >= image.scored
            brought = bool((is_new & (detections.scores >= least_score)).any())
            image.idle = 0 if brought else image.idle + 1
            image.scored = end
