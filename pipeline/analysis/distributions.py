"""What a run detected, without annotations: counts by class and image, scores, sizes, failures by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.analysis.detection_arrays import DetectionArrays, flatten_detections
from pipeline.analysis.image_coverage import list_failure_reasons
from pipeline.analysis.matching import Matches
from pipeline.analysis.object_sizes import SIZES, classify_sizes

SCORE_BINS = 20
_MOST_PER_IMAGE = 10_000
"""Images with more detections are counted as having so many in the quantiles."""
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ClassDistribution:
    """The detections of one class, or of all classes together."""

    label: str | None
    """None for all classes together."""
    detections: int
    images: int
    """Images with at least one of these detections."""
    scores: tuple[int, ...]
    """Detections in 20 bins of equal width from 0 to 1; scores outside are in the first or last."""
    sizes: tuple[int, ...]
    """Small, medium and large detections by COCO's areas."""


@dataclass(frozen=True)
class Distributions:
    """What a run detected."""

    images: int
    failed: int
    failed_by_reason: dict[str, int]
    """Failed images by `stage: error_type`."""
    without_detections: int
    """Images that did not fail and have no detection."""
    per_image: tuple[int, ...]
    """The smallest number of detections of an image that did not fail, the quartiles and the largest; empty
    without such images."""
    per_image_counts: dict[int, int]
    """How many images have so many detections, by steps of powers of two: 0, 1, 2, 4, 8 and so on are the
    lower ends."""
    overall: ClassDistribution
    per_class: tuple[ClassDistribution, ...]


class DistributionCounts:
    """Accepts parts of detections in any order and grouping.

    Args:
        classes: the labels; detections of others are counted over all classes only.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        rows = len(classes) + 1  # the last is of all classes, other labels included
        self._images = self._without = 0
        self._reasons: Counter[str] = Counter()
        self._per_image = np.zeros(_MOST_PER_IMAGE + 1, np.int64)
        self._images_with = np.zeros(rows, np.int64)
        self._scores = np.zeros((rows, SCORE_BINS), np.int64)
        self._sizes = np.zeros((rows, len(SIZES)), np.int64)

    def update(self, results: pa.Table, detections: DetectionArrays | None = None) -> None:
        """Add a part.

        Args:
            results: its columns `status`, `stage` and `error_type`.
            detections: the detections of its images; None takes those of its column `detections`.
        """
        self._images += len(results)
        self._reasons.update(list_failure_reasons(results))
        if detections is None:
            detections = flatten_detections(results.column("detections"), self.classes)
        is_ok = pc.equal(results.column("status"), "ok").to_numpy()
        counts = np.bincount(detections.image, minlength=len(results))[is_ok]
        self._without += int((counts == 0).sum())
        self._per_image += np.bincount(
            np.minimum(counts, _MOST_PER_IMAGE), minlength=_MOST_PER_IMAGE + 1
        )
        boxes = detections.boxes
        sizes = classify_sizes((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        clipped = np.clip(detections.scores.astype(np.float64), 0.0, 1.0)
        bins = np.minimum((clipped * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
        everything = np.full(len(bins), len(self.classes))
        for group in (detections.class_id, everything):
            is_listed = group >= 0
            listed = group[is_listed]
            self._scores += _count_pairs(listed, bins[is_listed], self._scores.shape)
            self._sizes += _count_pairs(listed, sizes[is_listed], self._sizes.shape)
            shape = (len(self._images_with), len(results))
            of_images = _count_pairs(listed, detections.image[is_listed], shape)
            self._images_with += (of_images > 0).sum(axis=1)

    def merge(self, other: DistributionCounts) -> None:
        """Add the counts of other images."""
        self._images += other._images
        self._without += other._without
        self._reasons.update(other._reasons)
        self._per_image += other._per_image
        self._images_with += other._images_with
        self._scores += other._scores
        self._sizes += other._sizes

    def compute(self) -> Distributions:
        """Return the distributions."""
        names: list[str | None] = [*self.classes, None]
        rows = [
            ClassDistribution(
                name,
                int(self._scores[index].sum()),
                int(self._images_with[index]),
                tuple(self._scores[index].tolist()),
                tuple(self._sizes[index].tolist()),
            )
            for index, name in enumerate(names)
        ]
        return Distributions(
            images=self._images,
            failed=self._reasons.total(),
            failed_by_reason=dict(sorted(self._reasons.items())),
            without_detections=self._without,
            per_image=_find_quantiles(self._per_image),
            per_image_counts=_group_counts(self._per_image),
            overall=rows[-1],
            per_class=tuple(rows[:-1]),
        )


def select_detections(matches: Matches, first_row: int, classes: int) -> DetectionArrays:
    """Select the detections of consecutive images from their matches; labels beyond the classes get -1."""
    chosen = matches[matches.is_detection]
    corners = [getattr(chosen, name).astype(np.float64) for name in ("x1", "y1", "x2", "y2")]
    class_id = chosen.class_id.astype(np.int64)
    return DetectionArrays(
        chosen.row - first_row,
        np.where(class_id < classes, class_id, -1),
        chosen.score,
        np.stack(corners, axis=1),
    )


def _count_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], shape: tuple[int, int]
) -> NDArray[np.int64]:
    """Count how often each pair of numbers occurs."""
    counts = np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1])
    return counts.reshape(shape)


def _find_quantiles(images_by_count: NDArray[np.int64]) -> tuple[int, ...]:
    """The quantiles of the number of detections, each a number that an image has."""
    cumulative = np.cumsum(images_by_count)
    total = int(cumulative[-1])
    if not total:
        return ()
    ranks = [min(int(q * total), total - 1) for q in _QUANTILES]
    return tuple(np.searchsorted(cumulative, ranks, side="right").tolist())


def _group_counts(images_by_count: NDArray[np.int64]) -> dict[int, int]:
    numbers = np.flatnonzero(images_by_count)
    grouped: dict[int, int] = {}
    for number in numbers.tolist():
        lower_end = 1 << number.bit_length() - 1 if number else 0
        grouped[lower_end] = grouped.get(lower_end, 0) + int(images_by_count[number])
    return grouped


def build_distribution_table(distributions: Distributions) -> pa.Table:
    """One row per class and bin of scores, and per class and size; `label` is null for all classes."""
    rows = [
        {"label": row.label, "figure": figure, "bin": name, "detections": count}
        for row in (distributions.overall, *distributions.per_class)
        for figure, names, counts in (
            ("score", [f"{index / SCORE_BINS:.2f}" for index in range(SCORE_BINS)], row.scores),
            ("size", SIZES, row.sizes),
        )
        for name, count in zip(names, counts, strict=True)
    ]
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                *((name, pa.string()) for name in ("label", "figure", "bin")),
                ("detections", pa.int64()),
            ]
        ),
    )
