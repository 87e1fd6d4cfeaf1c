"""Validation while training: detect in held-out images and score what is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging, storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.flat import Detections, GroundTruth, ground_truth
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidConfiguration, StorageError, UnreadableImage
from pipeline.training.source import Source, open_manifests, open_sources

if TYPE_CHECKING:
    from pipeline.detector import predictor as predicting
    from pipeline.detector.network import FastRCNN

NOTHING = Detections(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4))
)


@dataclass(frozen=True)
class Validation:
    """Which images the network is validated on while it is trained, and how often."""

    manifest: str | None = None
    """Manifest of held-out images of the same classes; none validates never."""
    proposals: str | None = None
    """Their stored proposals."""
    every: int = 1000
    """Steps between validations; the last step is validated too."""
    images: int = 500
    """At most the first so many images."""

    def validator(self, classes: tuple[str, ...]) -> Validator | None:
        """Open the images, or None where there are none.

        Raises:
            InvalidConfiguration: proposals are missing, the classes are others, or a number is below 1.
            PipelineError: what `open_manifests` and `open_sources` raise.
        """
        if self.manifest is None:
            return None
        if self.proposals is None:
            raise InvalidConfiguration("--validation.manifest needs --validation.proposals too")
        if min(self.every, self.images) < 1:
            raise InvalidConfiguration("--validation.every and --validation.images start at 1")
        (source,) = open_sources(open_manifests([self.manifest]), [self.proposals])
        if source.classes != classes:
            raise InvalidConfiguration(
                f"{storage.shown(source.manifest.uri)} has other classes than the network"
            )
        return Validator(source, self.images)


@dataclass(frozen=True)
class Validator:
    """Scores a network on the first images of a source, one at a time."""

    source: Source
    images: int

    def __call__(self, model: FastRCNN, preprocessing: Preprocessing) -> float:
        """VOC2007's 11-point mean AP at IoU 0.5; an unreadable image's objects count as missed."""
        from pipeline.detector.checkpoint import Checkpoint  # noqa: PLC0415  imports torch
        from pipeline.detector.predictor import Predictor  # noqa: PLC0415

        predictor = Predictor(Checkpoint(model, preprocessing))
        scores = VocAveragePrecision(len(self.source.classes))
        for uri, truth, boxes in self._images():
            try:
                (found,) = predictor([imaging.decode(storage.read(uri))], [boxes])
            except (UnreadableImage, StorageError):
                scores.update(truth, NOTHING)
            else:
                scores.update(truth, _flat(found))
        per_class = scores.result().eleven_point
        return float(np.nanmean(per_class)) if np.isfinite(per_class).any() else 0.0

    def _images(self) -> Iterator[tuple[str, GroundTruth, NDArray[np.float32]]]:
        left, first = self.images, 0
        for ordinal, count in enumerate(self.source.shard_rows):
            rows = self.source.manifest.read(first, min(count, left), ["objects"])
            part = self.source.read(ordinal)
            for row in range(len(rows)):
                truth = ground_truth(rows["objects"].slice(row, 1), self.source.classes)
                yield part.uris[row], truth, part.proposals[row]
            first, left = first + count, left - len(rows)
            if left <= 0:
                return


def _flat(found: predicting.Detections) -> Detections:
    """One image's detections as the score takes them."""
    image = np.zeros(len(found.scores), np.int64)
    boxes = found.boxes.astype(np.float64)
    return Detections(image, found.labels.astype(np.int64), found.scores, boxes)
