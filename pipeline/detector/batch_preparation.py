"""Batches in host memory: images and their RoIs. A thread prepares them for a GPU, which resizes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import imaging
from pipeline.detector.device_resize import resize_images
from pipeline.detector.host_transfer import stage_array, stage_bytes
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import LevelRois, Size
from pipeline.detector.rois import build_roi_batch

BATCHES_AHEAD = 2
"""Batches that are prepared while a GPU computes."""


class PreparedBatch(NamedTuple):
    """A batch in host memory, ready for the device."""

    rois_by_image: list[LevelRois]
    pixels: Tensor
    """uint8, all images' pixels one after the other: as decoded for a GPU, resized for a CPU."""
    sizes: list[Size]
    """Height and width of each image in `pixels`."""
    unique: Tensor
    """`(U, 5)`, see `RoiBatch`."""
    unique_index: Tensor
    """`(R,)`, see `RoiBatch`."""

    def resize(self, device: torch.device) -> Tensor:
        """Copy the images to the device and resize them there to uint8 RGB `(B, h, w, 3)`."""
        pixels = self.pixels.to(device, non_blocking=True)
        shape = self.rois_by_image[0].shape
        resized = [resize_images(alike, shape) for alike in _split_pixels(pixels, self.sizes)]
        return torch.cat(resized) if len(resized) > 1 else resized[0]


def _split_pixels(pixels: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """View pixels as images `(B, H, W, 3)`: one tensor for each group of neighbours of one size."""
    images, start = [], 0
    for (height, width), alike in itertools.groupby(sizes):
        count = len(list(alike))
        end = start + count * height * width * 3
        images.append(pixels[start:end].view(count, height, width, 3))
        start = end
    return images


class BatchPreparation:
    """Prepares batches: on a CPU when they are needed, for a GPU ahead, while it computes."""

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
        # One thread, which starts with its first task: several would wait for Python's lock.
        self._preparing = ThreadPoolExecutor(1)

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
        pending: deque[Future[PreparedBatch]] = deque()
        for shape, batch in batches:
            pending.append(self._preparing.submit(self._prepare, shape, batch, images, boxes))
            if len(pending) > BATCHES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

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
        pixels, stored_sizes = self._stage_images(of_batch, shape)
        return PreparedBatch(
            batch,
            pixels,
            stored_sizes,
            stage_array(rois.unique, self._device),
            stage_array(rois.unique_index, self._device),
        )

    def _stage_images(
        self, images: Sequence[NDArray[np.uint8]], shape: Size
    ) -> tuple[Tensor, list[Size]]:
        """Copy images to host memory that the device reads, and return their sizes there."""
        if self._device.type == "cpu":  # a core resizes faster than torch does on it
            images = [imaging.resize(image, shape[1], shape[0]) for image in images]
        return stage_bytes(images, self._device), [(i.shape[0], i.shape[1]) for i in images]
