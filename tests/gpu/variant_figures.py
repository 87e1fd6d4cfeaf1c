"""Other ways to compute the same, timed on the device: is one of them worth its place in the predictor?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from pipeline import imaging
from pipeline.detector import fusion
from pipeline.detector.backbones.backbone import Backbone
from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.device_resize import resize_images
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.pooling import _pool_by_torchvision
from tests.gpu.checks import Setting
from tests.gpu.figure_inputs import build_trained, draw_load, list_networks
from tests.gpu.timing import synchronise, time_call


def measure_variants(setting: Setting) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield milliseconds of trunk, pooling and head as they are, and of each variant.

    A variant that raises an error is reported with it: some need CUDA.
    """
    for name in list_networks(setting)[: 1 if setting.is_quick else None]:
        yield from _measure_network(setting, name)
    yield "variants images", _measure_pixels(setting)


def _measure_network(setting: Setting, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    trained = build_trained(setting, name)
    dtype = torch.bfloat16 if setting.on_gpu else torch.float32
    network = InferenceNetwork(trained.network, setting.device, dtype)
    separate = _build_separate_layers(trained, setting, dtype)
    images, side, rois_of_all = (2, 64, 24) if setting.is_quick else (8, 600, 4096)
    batch = torch.randn(images, 3, side, side * 4 // 3, device=setting.device)
    batch = batch.to(memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, side / 2, (rois_of_all, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, side / 2, corners.shape)], axis=1)
    indexed = np.insert(boxes, 0, np.arange(rois_of_all) % images, axis=1)
    rois = torch.from_numpy(indexed).float().to(setting.device)
    with torch.inference_mode():
        features = network.extract_features(batch)
        pooled = network.pool_rois(features, rois)
        inclusive = rois - rois.new_tensor([0.0, 0.0, 0.0, 1.0, 1.0])
        calls: dict[str, Callable[[], Any]] = {
            "trunk": lambda: network.extract_features(batch),
            "trunk, separate layers": lambda: separate.trunk(batch.to(dtype)),
            "trunk, channels first": _arrange_channels_first(trained, setting, dtype, batch),
            "trunk, ReLU in cuDNN": _rectify_in_cudnn(setting, separate, "trunk", batch.to(dtype)),
            "trunk, compiled": _compile(separate.trunk, batch.to(dtype)),
            "trunk, CUDA graph": _capture(setting, network.extract_features, batch),
            "pooling": lambda: network.pool_rois(features, rois),
            "pooling by torchvision": lambda: _pool_by_torchvision(
                features, inclusive, network.roi_size, network.spatial_scale
            ),
            "head": lambda: network.head(pooled),
            "head, separate layers": lambda: separate.head(pooled),
            "head, channels first": lambda: separate.head(pooled.contiguous()),
            "head, ReLU in cuDNN": _rectify_in_cudnn(setting, separate, "head", pooled),
            "head, compiled": _compile(separate.head, pooled),
            "head, CUDA graph": _capture(setting, network.head, pooled),
        }
        milliseconds = {part: _time_or_explain(setting, call) for part, call in calls.items()}
    yield f"variants {name}, {images} images, {rois_of_all} RoIs", milliseconds


def _build_separate_layers(
    trained: TrainedNetwork, setting: Setting, dtype: torch.dtype
) -> Backbone:
    """The backbone as torch computes it, layer by layer, channels last in memory."""
    own = copy.deepcopy(trained.network.backbone).eval().requires_grad_(False)
    bake_frozen_norms(own)
    return own.to(setting.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _arrange_channels_first(
    trained: TrainedNetwork, setting: Setting, dtype: torch.dtype, batch: Tensor
) -> Callable[[], Tensor]:
    """The trunk with weights and images of the other memory layout."""
    other = _build_separate_layers(trained, setting, dtype)
    other.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images = batch.contiguous().to(dtype)
    return lambda: other.trunk(images)


def _rectify_in_cudnn(
    setting: Setting, backbone: Backbone, method: str, values: Tensor
) -> Callable[[], Tensor]:
    """Layer by layer, but with each ReLU in the convolution before it, where cuDNN has that."""
    if not setting.on_gpu:
        return _require_gpu(setting)
    traced = fusion._trace(copy.deepcopy(backbone), method, without=(nn.Identity, nn.Dropout))
    for node in list(traced.graph.nodes):
        layer, following = fusion._get_layer(traced, node), fusion._get_only_user(node)
        if type(layer) is not nn.Conv2d or following is None:
            continue
        is_layer = isinstance(fusion._get_layer(traced, following), nn.ReLU)
        if is_layer or following.target in (torch.relu, functional.relu):
            traced.add_submodule(str(node.target), _RectifiedConvolution(layer))
            fusion._replace(following, node)
    fused = fusion._compile(traced)
    return lambda: fused(values)


def _require_gpu(setting: Setting) -> Callable[[], Any]:
    def call() -> None:
        setting.require_gpu()

    return call


class _RectifiedConvolution(nn.Module):
    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        layer = self.layer
        rectified: Tensor = torch.cudnn_convolution_relu(
            *(input, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation),
            layer.groups,
        )
        return rectified


def _compile(function: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[], Tensor]:
    compiled: list[Callable[[Tensor], Tensor]] = []

    def call() -> Tensor:
        if not compiled:
            torch.compiler.reset()
            compiled.append(torch.compile(function))
        return compiled[0](values)

    return call


def _capture(
    setting: Setting, function: Callable[[Tensor], Tensor], values: Tensor
) -> Callable[[], None]:
    """Replays the kernels of a call; their inputs stay where they are."""
    graphs: list[torch.cuda.CUDAGraph] = []

    def call() -> None:
        setting.require_gpu()
        if not graphs:
            side = torch.cuda.Stream(setting.device)
            side.wait_stream(torch.cuda.current_stream(setting.device))
            with torch.cuda.stream(side):
                function(values)
            torch.cuda.current_stream(setting.device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                function(values)
            graphs.append(graph)
        graphs[0].replay()

    return call


def _measure_pixels(setting: Setting) -> dict[str, Any]:
    """Milliseconds per image to decode and to resize, on a core and on the device."""
    image = draw_load(setting, 1).images[0]
    height, width = (96, 120) if setting.is_quick else (600, 800)
    encoded = imaging.encode_jpeg(image)
    as_tensor = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    stored = torch.from_numpy(image)[None].to(setting.device)
    calls: dict[str, Callable[[], Any]] = {
        "decode on a core": lambda: imaging.decode_image(encoded),
        "decode 16 on the device": lambda: decode_jpeg(
            [as_tensor] * 16, ImageReadMode.RGB, device=setting.device
        ),
        "resize on a core": lambda: imaging.resize(image, width, height),
        "resize on the device": lambda: resize_images(stored, (height, width)),
    }
    return {name: _time_or_explain(setting, call) for name, call in calls.items()}


def _time_or_explain(setting: Setting, call: Callable[[], Any]) -> float | str:
    """Milliseconds of a call, or why it cannot run here."""
    try:
        return 1e3 * time_call(setting, call, seconds=0.5)
    except Exception as error:  # a variant may fail in any way, and the others still count
        synchronise(setting)
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"
