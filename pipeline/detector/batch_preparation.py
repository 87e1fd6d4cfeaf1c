"""Batches in host memory: images resized to one shape, and their RoIs; threads prepare them for a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import imaging
from pipeline.detector.host_transfer import stage_array
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import LevelRois, Size
from pipeline.detector.rois import build_roi_batch


class PreparedBatch(NamedTuple):
    """A batch in host memory, ready for the device."""

    rois_by_image: list[LevelRois]
    images: Tensor
    """uint8 `(B, h, w, 3)`."""
    unique: Tensor
    """`(U, 5)`, see `RoiBatch`."""
    unique_index: Tensor
    """`(R,)`, see `RoiBatch`; RoIs are in the order of the images."""


class BatchPreparation:
    """Prepares batches: on a CPU when they are needed, for a GPU one ahead, while it computes."""

    def __init__(
        self, preprocessing: Preprocessing, spatial_scale: float, device: torch.device
    ) -> None:
        """Prepare for a device.

        Args:
            preprocessing: how RoIs are projected.
            spatial_scale: cells of the feature map per resized pixel.
            device: where the batches go.
        """
        self._preprocessing = preprocessing
        self._spatial_scale = spatial_scale
        self._device = device
        self._preparing = ThreadPoolExecutor(1)  # threads start with their first task
        self._resizing = ThreadPoolExecutor(torch.get_num_threads())

    def prepare_ahead(
        self,
        batches: Iterable[tuple[Size, list[LevelRois]]],
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[NDArray[np.float32]],
    ) -> Iterator[PreparedBatch]:
        """Yield the batches in order.

        Args:
            batches: the shape of each, and the RoIs of each of its images.
            images: all images, uint8 RGB `(H, W, 3)`.
            boxes: `(N, 4)` of all images, from `clip_proposals`.
        """
        if self._device.type == "cpu":
            for shape, batch in batches:
                yield self._prepare(shape, batch, images, boxes)
            return
        pending = None
        for shape, batch in batches:
            following = self._preparing.submit(self._prepare, shape, batch, images, boxes)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()

    def _prepare(
        self,
        shape: Size,
        batch: list[LevelRois],
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[NDArray[np.float32]],
    ) -> PreparedBatch:
        of_batch = [images[at_level.image_index] for at_level in batch]
        rois = build_roi_batch(
            [boxes[at_level.image_index][at_level.rows] for at_level in batch],
            [(image.shape[0], image.shape[1]) for image in of_batch],
            shape,
            self._spatial_scale,
            self._preprocessing,
        )
        return PreparedBatch(
            batch,
            stage_array(self.resize(of_batch, shape), self._device),
            stage_array(rois.unique, self._device),
            stage_array(rois.unique_index, self._device),
        )

    def resize(self, images: Sequence[NDArray[np.uint8]], shape: Size) -> NDArray[np.uint8]:
        """Resize images to `(B, h, w, 3)`."""

        def resize_one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return imaging.resize(image, shape[1], shape[0])

        apply = map if self._device.type == "cpu" else self._resizing.map
        return np.stack(list(apply(resize_one, images)))
