"""Features of an image's proposals, one vector each, as each system computes them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline import imaging
from pipeline.baselines.networks import BaselineNetwork, SppNetwork
from pipeline.baselines.settings import RegionSettings
from pipeline.baselines.spatial_pyramid import pool_pyramid
from pipeline.baselines.windows import choose_fill, warp_windows
from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.device_memory import PartLimit
from pipeline.detector.device_selection import compute_in_ieee
from pipeline.detector.fusion import can_fuse, fuse_for_inference
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.network import FastRCNN
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import Pyramid, split_by_level
from pipeline.detector.rois import build_roi_batch

WINDOWS_TOGETHER = 64
"""Warped windows, or RoIs of an image, that go through the network at once."""


class RegionFeatures(Protocol):
    """Computes the features of proposals."""

    def compute(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Tensor:
        """The features `(N, D)`, float32, of boxes `(N, 4)` inside an image `(H, W, 3)`, N at least 1."""


class WindowFeatures:
    """R-CNN: each proposal is warped to a window, and the whole network sees each window."""

    def __init__(
        self,
        network: FastRCNN,
        preprocessing: Preprocessing,
        settings: RegionSettings,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._network = InferenceNetwork(network, device, dtype)
        self._preprocessing = preprocessing
        self._settings = settings
        self._device = device
        self._fill = choose_fill(preprocessing)

    @torch.inference_mode()
    def compute(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Tensor:
        """As `RegionFeatures.compute`."""
        settings = self._settings
        vectors = []
        for start in range(0, len(boxes), WINDOWS_TOGETHER):
            windows = warp_windows(
                image,
                boxes[start : start + WINDOWS_TOGETHER],
                settings.window_size,
                settings.window_context,
                self._fill,
            )
            values = self._preprocessing.normalise(torch.from_numpy(windows).to(self._device))
            features = self._network.extract_features(values)
            rois = build_whole_rois(len(windows), settings.window_size).to(self._device)
            vectors.append(self._network.compute_vectors(features, rois, len(rois)).float())
        return torch.cat(vectors)


def build_whole_rois(count: int, size: int) -> Tensor:
    """The RoIs `(N, 5)` that cover N square images of `size` pixels."""
    rois = torch.tensor([[0.0, 0.0, 0.0, size, size]]).repeat(count, 1)
    rois[:, 0] = torch.arange(count)
    return rois


class RoiFeatures:
    """Fast R-CNN: the network's own features of RoIs, at the checkpoint's scale."""

    def __init__(
        self,
        network: FastRCNN,
        preprocessing: Preprocessing,
        device: torch.device,
        dtype: torch.dtype,
        pyramid: Pyramid = Pyramid(),
    ) -> None:
        self._network = InferenceNetwork(network, device, dtype)
        self._preprocessing = preprocessing
        self._levels = pyramid.build_levels(preprocessing)
        self._device = device

    @torch.inference_mode()
    def compute(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Tensor:
        """As `RegionFeatures.compute`."""
        size = (image.shape[0], image.shape[1])
        vectors: Tensor | None = None
        for level in split_by_level([boxes], [size], self._levels):
            resized = imaging.resize(image, level.shape[1], level.shape[0])
            values = self._preprocessing.normalise(
                torch.from_numpy(np.stack([resized])).to(self._device)
            )
            features = self._network.extract_features(values)
            rois = build_roi_batch(
                [boxes[level.rows]],
                [size],
                level.shape,
                self._network.spatial_scale,
                self._preprocessing,
            )
            unique = torch.from_numpy(rois.unique).to(self._device)
            computed = self._network.compute_vectors(features, unique, 4 * WINDOWS_TOGETHER).float()
            own = computed[torch.from_numpy(rois.unique_index).to(self._device)]
            if vectors is None:
                vectors = own.new_empty((len(boxes), own.shape[1]))
            vectors[torch.from_numpy(level.rows).to(self._device)] = own
        assert vectors is not None, "callers pass at least one box"
        return vectors


class PyramidFeatures:
    """SPPnet: one pass over the image at each scale, and a pyramid pooled for each proposal."""

    def __init__(
        self,
        network: SppNetwork,
        preprocessing: Preprocessing,
        settings: RegionSettings,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        own = copy.deepcopy(network).eval().requires_grad_(False)
        bake_frozen_norms(own.backbone)
        own.to(device, torch.float32).to(memory_format=torch.channels_last)
        own.backbone.to(dtype=dtype)
        self._trunk: Callable[[Tensor], Tensor] = own.backbone.trunk
        if can_fuse(device, dtype):
            self._trunk = fuse_for_inference(own.backbone, "trunk")
        self._image_limit = PartLimit("images")
        self._fc = own.fc
        self._levels = own.levels
        self._spatial_scale = own.spatial_scale
        self._device, self._dtype = device, dtype
        self._preprocessing = preprocessing
        self.scales = Pyramid(settings.scales, settings.scale_cap).build_levels(preprocessing)
        """The preprocessing at each scale."""

    @torch.inference_mode()
    def extract_maps(self, image: NDArray[np.uint8]) -> list[Tensor]:
        """The feature maps `(1, C, h, w)` of an image at all scales: what SPPnet stores."""
        return [self._extract_map(image, shape) for shape in self.compute_shapes(image.shape[:2])]

    def compute_shapes(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        """Height and width of the scaled images of an image with this height and width."""
        return [scale.compute_resized_shape(size[0], size[1]) for scale in self.scales]

    def _extract_map(self, image: NDArray[np.uint8], shape: tuple[int, int]) -> Tensor:
        resized = imaging.resize(image, shape[1], shape[0])
        values = self._preprocessing.normalise(
            torch.from_numpy(np.stack([resized])).to(self._device)
        )
        with compute_in_ieee(self._device, self._dtype):
            return self._image_limit.compute(
                lambda images: self._trunk(images.to(self._dtype)).float(), values, len(values)
            )

    @torch.inference_mode()
    def pool(
        self, maps: Sequence[Tensor], size: tuple[int, int], boxes: NDArray[np.float32]
    ) -> Tensor:
        """The pooled pyramids `(N, C * cells)` of boxes `(N, 4)`.

        Args:
            maps: one per scale, from `extract_maps`.
            size: height and width of the image.
            boxes: in its pixels, N at least 1.
        """
        shapes = self.compute_shapes(size)
        pooled: Tensor | None = None
        for level in split_by_level([boxes], [size], self.scales):
            features = maps[shapes.index(level.shape)].to(self._device)
            projected = self._preprocessing.project_rois(boxes[level.rows], size, level.shape)
            rois = torch.from_numpy(np.insert(projected, 0, 0, axis=1)).to(self._device)
            own = pool_pyramid(features, rois, self._levels, self._spatial_scale)
            if pooled is None:
                pooled = own.new_empty((len(boxes), own.shape[1]))
            pooled[torch.from_numpy(level.rows).to(self._device)] = own
        assert pooled is not None, "callers pass at least one box"
        return pooled

    @torch.inference_mode()
    def compute_vectors(
        self, maps: Sequence[Tensor], size: tuple[int, int], boxes: NDArray[np.float32]
    ) -> Tensor:
        """The features `(N, D)` of boxes, from the maps of their image."""
        vectors = [
            self._fc(self.pool(maps, size, boxes[start : start + 4 * WINDOWS_TOGETHER]))
            for start in range(0, len(boxes), 4 * WINDOWS_TOGETHER)
        ]
        return torch.cat(vectors)

    def compute(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Tensor:
        """As `RegionFeatures.compute`."""
        return self.compute_vectors(
            self.extract_maps(image), (image.shape[0], image.shape[1]), boxes
        )


def build_region_features(
    network: BaselineNetwork,
    preprocessing: Preprocessing,
    settings: RegionSettings,
    device: torch.device,
    dtype: torch.dtype,
    *,
    pyramid: Pyramid = Pyramid(),
) -> RegionFeatures:
    """Build what computes the features of a system's proposals.

    Args:
        network: of the system; it is copied.
        preprocessing: what its weights expect.
        settings: of the system.
        device: where to compute.
        dtype: of trunk and head.
        pyramid: Fast R-CNN's features: scales in place of the checkpoint's own.
    """
    if isinstance(network, SppNetwork):
        return PyramidFeatures(network, preprocessing, settings, device, dtype)
    if settings.system == "rcnn":
        return WindowFeatures(network, preprocessing, settings, device, dtype)
    return RoiFeatures(network, preprocessing, device, dtype, pyramid)
