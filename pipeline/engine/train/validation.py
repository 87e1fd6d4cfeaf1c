"""Validation during training: detect objects in held-out images and score the detections."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging, manifests, uris
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import (
    DetectionArrays,
    GroundTruthArrays,
    flatten_ground_truth,
)
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import (
    AccessDenied,
    InvalidConfiguration,
    MissingObject,
    UnreadableImage,
)
from pipeline.option_ranges import check_range
from pipeline.runs.encoded_image import ListedImage
from pipeline.stated_sizes import check_proposed_size, check_size
from pipeline.training.annotated_dataset import (
    AnnotatedDataset,
    open_annotated_datasets,
    open_annotated_manifests,
)
from pipeline.training.sample_loader import read_with_retries

if TYPE_CHECKING:
    from pipeline.detector.network import FastRCNN
    from pipeline.detector.predictor import ImageDetections

_ListedRow = tuple[ListedImage, tuple[int, int] | None, GroundTruthArrays, NDArray[np.float32]]
"""An image, the size that its proposals were computed for, its objects and its proposals."""

NO_DETECTIONS = DetectionArrays(
    np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4))
)


@dataclass(frozen=True)
class Validation:
    """Which images validate the network during training, and how often."""

    manifest: str | None = None
    """Manifest of held-out images with the same classes; unset disables validation."""
    proposals: str | None = None
    """Stored proposals of these images."""
    every: int = 1000
    """Steps between validations; the last step is always validated."""
    images: int = 500
    """Maximum number of images, counted from the first."""

    def open_validator(self, classes: tuple[str, ...]) -> Validator | None:
        """Open the images; None if validation is disabled.

        Raises:
            InvalidConfiguration: proposals are missing, the classes differ, or a number is below 1.
            PipelineError: what `open_annotated_manifests` and `open_annotated_datasets` raise.
        """
        if self.manifest is None:
            return None
        if self.proposals is None:
            raise InvalidConfiguration("--validation.manifest needs --validation.proposals too")
        check_range("validation.every", self.every, at_least=1)
        check_range("validation.images", self.images, at_least=1)
        listed = manifests.open_manifest(self.manifest)
        if listed.classes and listed.classes != classes:
            raise InvalidConfiguration(
                f"{uris.redact_uri(listed.uri)} has other classes than the network"
            )
        (dataset,) = open_annotated_datasets(
            open_annotated_manifests([self.manifest], classes), [self.proposals]
        )
        return Validator(dataset, self.images)


@dataclass(frozen=True)
class Validator:
    """Scores a network on the first images of a dataset, one at a time."""

    dataset: AnnotatedDataset
    images: int

    @property
    def digest(self) -> str:
        """A digest of the images and proposals that it scores on."""
        stored = self.dataset.proposals
        identity = [stored.dataset, stored.provenance, self.images]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def __call__(
        self, network: FastRCNN, preprocessing: Preprocessing, device: str = "auto"
    ) -> float:
        """VOC2007's 11-point mean AP at IoU 0.5; an unreadable image's objects count as missed.

        Args:
            network: with raw deltas.
            preprocessing: what its weights expect.
            device: as `Predictor` takes it; a worker that holds none of its node's GPUs must name the CPU.

        Raises:
            StorageError: the store does not answer, which says nothing about the network.
        """
        from pipeline.detector.checkpoint import TrainedNetwork  # noqa: PLC0415  imports torch
        from pipeline.detector.predictor import Predictor  # noqa: PLC0415

        predictor = Predictor(TrainedNetwork(network, preprocessing), device=device)
        scores = VocAveragePrecision(len(self.dataset.classes))
        for image, proposed_size, truth, boxes in self._read_images():
            try:
                (detections,) = predictor([self._decode(image, proposed_size)], [boxes])
            except (UnreadableImage, MissingObject, AccessDenied):
                scores.update(truth, NO_DETECTIONS)
            else:
                scores.update(truth, _flatten(detections))
        per_class = scores.compute().eleven_point
        return float(np.nanmean(per_class)) if np.isfinite(per_class).any() else 0.0

    def _decode(
        self, image: ListedImage, proposed_size: tuple[int, int] | None
    ) -> NDArray[np.uint8]:
        decoding = self.dataset.manifest.decoding
        decoded = imaging.decode_image(read_with_retries(image.uri, image.member), decoding)
        size = (decoded.shape[1], decoded.shape[0])
        check_size(size, image.stated_size, turned=decoding.exif == "apply")
        check_proposed_size(size, proposed_size)
        return decoded

    def _read_images(self) -> Iterator[_ListedRow]:
        left, first = self.images, 0
        for ordinal, count in enumerate(self.dataset.shard_rows):
            rows = self.dataset.manifest.read(first, min(count, left), ["objects"])
            shard = self.dataset.read(ordinal)
            for row in range(len(rows)):
                truth = flatten_ground_truth(rows["objects"].slice(row, 1), self.dataset.classes)
                image = ListedImage(
                    shard.image_ids[row],
                    shard.uris[row],
                    shard.stated_sizes[row],
                    shard.members[row],
                )
                yield image, shard.proposed_sizes[row], truth, shard.proposals[row]
            first, left = first + count, left - len(rows)
            if left <= 0:
                return


def _flatten(detections: ImageDetections) -> DetectionArrays:
    """One image's detections as the score expects them."""
    image = np.zeros(len(detections.scores), np.int64)
    boxes = detections.boxes.astype(np.float64)
    return DetectionArrays(image, detections.labels.astype(np.int64), detections.scores, boxes)
