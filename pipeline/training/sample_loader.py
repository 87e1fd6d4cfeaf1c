"""The samples of a training step: an image read, decoded and resized, with its sampled RoIs.

Nothing here needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, imaging
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.sampling import sample_rois
from pipeline.detector.targets import TargetStatistics
from pipeline.errors import AccessDenied, MissingObject, StorageError, UnreadableImage
from pipeline.image_members import Member
from pipeline.image_reader import read_image
from pipeline.stated_sizes import check_proposed_size, check_size
from pipeline.training.annotated_dataset import AnnotatedDataset, Annotations
from pipeline.training.recipe import Recipe
from pipeline.training.sample_order import WINDOW, PlannedSample, make_generator
from pipeline.training.shard_cache import ShardCache
from pipeline.training.survey import MIRRORED, select_candidates

ATTEMPTS = 4
"""Attempts to read an image from a store that does not answer."""


@dataclass(frozen=True)
class Sample:
    """One image of a training step."""

    image_id: str
    image: NDArray[np.uint8]
    """RGB `(h, w, 3)`, flipped and resized, not yet normalised."""
    rois: NDArray[np.float32]
    """`(S, 4)` in pixels of `image`."""
    labels: NDArray[np.int64]
    """`(S,)`, 0 for background."""
    targets: NDArray[np.float32]
    """`(S, 4)`, normalised."""
    bytes_read: int = 0
    """Of the encoded image."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read, or that its boxes do not belong to."""

    image_id: str
    reason: str


class SampleLoader:
    """Loads any sample of the order; flip, scale and RoIs depend on (seed, epoch, image_id)."""

    def __init__(
        self,
        datasets: Sequence[AnnotatedDataset],
        recipe: Recipe,
        preprocessing: Preprocessing,
        statistics: TargetStatistics,
        seed: int,
    ) -> None:
        self._decodings = [dataset.manifest.decoding for dataset in datasets]
        self._recipe = recipe
        self._preprocessing = preprocessing
        self._statistics = statistics
        self._seed = seed
        # Two windows: the next one's shards are read while the last samples of this one are loaded.
        self._shards = ShardCache(datasets, 2 * WINDOW)

    def load(self, planned: PlannedSample) -> Sample | SkippedImage:
        """Read and prepare one image; skip it if it is missing, forbidden, damaged or of the wrong size.

        Raises:
            StorageError: the store does not answer. The image is not skipped, because a run without
                the outage would train on it.
        """
        row = planned.location.row
        shard = self._shards.get(planned.location.dataset, planned.location.shard)
        image_id = shard.image_ids[row]
        decoding = self._decodings[planned.location.dataset]
        try:
            encoded = read_with_retries(shard.uris[row], shard.members[row])
            image = imaging.decode_image(encoded, decoding)
            size = (image.shape[1], image.shape[0])
            check_size(size, shard.stated_sizes[row], turned=decoding.exif == "apply")
            check_proposed_size(size, shard.proposed_sizes[row])
        except (UnreadableImage, MissingObject, AccessDenied) as error:
            return SkippedImage(image_id, str(error))
        rng = make_generator(self._seed, planned.epoch, image_id)
        annotations = shard.annotations[row]
        assert annotations is not None, "the survey leaves out images that are not annotated"
        sample = self.prepare(image_id, image, annotations, shard.proposals[row], rng)
        return replace(sample, bytes_read=len(encoded))

    def prepare(
        self,
        image_id: str,
        image: NDArray[np.uint8],
        annotations: Annotations,
        proposals: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> Sample:
        """The sample of a decoded image `(H, W, 3)` with its objects and proposals `(N, 4)`."""
        recipe = self._recipe
        height, width = image.shape[:2]
        side = recipe.short_sides[int(rng.integers(len(recipe.short_sides)))]
        is_mirrored = rng.random() < recipe.flip
        objects = geometry.clip(annotations.boxes, width, height)
        inside = geometry.is_nonempty(objects)
        sampled = sample_rois(
            select_candidates(geometry.clip(proposals, width, height), recipe),
            objects[inside],
            annotations.labels[inside],
            annotations.crowd[inside],
            rng,
            rois_per_image=recipe.rois_per_image,
            fg_fraction=recipe.foreground_fraction,
            fg_iou=recipe.foreground_iou,
            bg_iou=(recipe.background_iou_low, recipe.background_iou_high),
            widen_background=recipe.widen_background,
        )
        rois, targets = sampled.boxes, sampled.targets
        resized = self._preprocessing.resize(image, short_side=side, max_side=recipe.max_side)
        if is_mirrored:
            resized = resized[:, ::-1]
            rois = geometry.flip_horizontally(rois, width)
            targets = targets * MIRRORED
        rois = self._preprocessing.project_rois(rois, (height, width), resized.shape[:2])
        targets = self._statistics.normalise(targets, sampled.labels)
        return Sample(image_id, np.array(resized), rois, sampled.labels, targets)


def read_with_retries(uri: str, member: Member | None) -> bytes:
    """The bytes of an image; retries a store that does not answer."""
    for attempt in range(ATTEMPTS):
        try:
            return read_image(uri, member)
        except (MissingObject, AccessDenied):
            raise
        except StorageError:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(4**attempt)  # 1, 4, 16 s, as the detection runs wait
    raise AssertionError("the loop returns or raises")
