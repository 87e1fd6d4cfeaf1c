"""Batches in host memory: images and their RoIs. Threads prepare them for a GPU, which resizes by itself."""

from __future__ import annotations

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
from pipeline.detector.host_transfer import stage_array, stage_image
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import LevelRois, Size
from pipeline.detector.rois import ImageRois, find_image_rois, join_image_rois


BATCHES_AHEAD = 2
"""Batches that are prepared while a GPU computes."""


class PreparedBatch(NamedTuple):
    """A batch in host memory, ready for the device."""

    rois_by_image: list[LevelRois]
    shape: Size
    """Height and width to which the images are resized."""
    images: list[Tensor]
    """uint8 RGB `(H, W, 3)` of each: as decoded for a GPU, resized for a CPU."""
    unique: Tensor
    """`(U, 5)`, see `RoiBatch`."""
    unique_index: Tensor
    """`(R,)`, see `RoiBatch`."""

    def resize(self, device: torch.device) -> Tensor:
        """Copy the images to the device and resize them there to uint8 RGB `(B, h, w, 3)`."""
        on_device = [image.to(device, non_blocking=True) for image in self.images]
        by_size: dict[torch.Size, list[int]] = {}
        for position, image in enumerate(on_device):
            by_size.setdefault(image.shape, []).append(position)
        resized: dict[int, Tensor] = {}
        for positions in by_size.values():
            stacked = torch.stack([on_device[position] for position in positions])
            resized.update(zip(positions, resize_images(stacked, self.shape), strict=True))
        return torch.stack([resized[position] for position in range(len(on_device))])


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
        # Threads start with their first task.
        self._of_batches = ThreadPoolExecutor(1)
        self._of_images = ThreadPoolExecutor(torch.get_num_threads())

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
            pending.append(self._of_batches.submit(self._prepare, shape, batch, images, boxes))
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
        def prepare_one(at_level: LevelRois) -> tuple[Tensor, ImageRois]:
            image = images[at_level.image_index]
            rois = find_image_rois(
                boxes[at_level.image_index][at_level.rows],
                (image.shape[0], image.shape[1]),
                shape,
                self._spatial_scale,
                self._preprocessing,
            )
            return self._stage_image(image, shape), rois

        on_cpu = self._device.type == "cpu"
        prepared = list((map if on_cpu else self._of_images.map)(prepare_one, batch))
        rois = join_image_rois([of_image for _, of_image in prepared])
        return PreparedBatch(
            batch,
            shape,
            [image for image, _ in prepared],
            stage_array(rois.unique, self._device),
            stage_array(rois.unique_index, self._device),
        )

    def _stage_image(self, image: NDArray[np.uint8], shape: Size) -> Tensor:
        if self._device.type == "cpu":  # a core resizes faster than torch does on it
            image = imaging.resize(image, shape[1], shape[0])
        return stage_image(image, self._device)
