"""Convolutions that apply a ReLU and add a shortcut without a pass over memory for each.

On the CPU torch computes `relu(conv(x) + shortcut)` in three passes over memory; in bf16 the passes after
the convolution took 7 % of a MobileNetV2 head's time and a fifth of its trunk's. oneDNN needs one pass.
`torch.compile` uses the same operators (`torch.ops.mkldnn`), but recompiles for other shapes; this module
traces and replaces the layers directly, which takes milliseconds. On a GPU the bias, which torch adds in a
pass of its own, the shortcut and the ReLU take one pass together (`gpu_epilogue`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pipeline.detector.backbones.backbone import Backbone
from pipeline.detector.backbones.frozen_norm import FrozenNormConv2d
from pipeline.detector.backbones.padding import PaddedConv2d
from pipeline.detector.gpu_kernels import load_gpu_kernels
from pipeline.detector.small_maps import MAP_SIDE, SmallMapConvolution, supports_small_maps

_RECTIFIERS: dict[Any, tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    torch.relu: ("relu", []),
    functional.relu: ("relu", []),
}
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class FusedConv2d(nn.Module):
    """A convolution fused with a following sum with a shortcut, a ReLU or ReLU6, both or neither."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.rectifier, self.limits = "none", list[float]()
        self.supports_small_maps = supports_small_maps(convolution)
        self.on_small_maps: SmallMapConvolution | None = None

    def forward(self, input: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Convolve `input` `(B, C, h, w)` to `(B, C', h', w')`; `shortcut` has the result's shape."""
        layer = self.convolution
        if self.supports_small_maps and input.shape[2:] == (MAP_SIDE, MAP_SIDE):
            if self.on_small_maps is None:  # only then: its filters take five times the memory
                self.on_small_maps = SmallMapConvolution(layer)
            return self._rectify(self.on_small_maps(input, shortcut))
        weight, padding = layer.weight, layer.padding
        if isinstance(layer, PaddedConv2d):
            input, weight, padding = layer.pad_input(input, weight)
        geometry = (list(padding), list(layer.stride), list(layer.dilation), layer.groups)
        if shortcut is None:
            result: Tensor = torch.ops.mkldnn._convolution_pointwise(
                *(input, weight, layer.bias, *geometry),
                *(self.rectifier, self.limits, ""),
            )
            return result
        rectifier = None if self.rectifier == "none" else self.rectifier
        summed: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            *(input, shortcut, weight, layer.bias, *geometry),
            *("add", None, rectifier, self.limits, ""),
        )
        return summed

    def _rectify(self, values: Tensor) -> Tensor:
        if self.rectifier == "relu":
            return values.relu_()
        return values if self.rectifier == "none" else values.clamp_(*self.limits)


class FusedConv2dOnGpu(nn.Module):
    """As `FusedConv2d`, on a GPU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.rectifier, self.limits = "none", list[float]()

    def forward(self, input: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Convolve `input` `(B, C, h, w)` to `(B, C', h', w')`; `shortcut` has the result's shape."""
        layer = self.convolution
        weight, padding = layer.weight, layer.padding
        if isinstance(layer, PaddedConv2d):
            input, weight, padding = layer.pad_input(input, weight)
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        values = functional.conv2d(input, weight, None, *geometry)  # type: ignore[arg-type]
        limits = self._get_limits()
        kernels = load_gpu_kernels() if values.is_cuda else None
        if kernels is not None and layer.bias is not None and _is_channels_last(values):
            if shortcut is not None:
                shortcut = shortcut.contiguous(memory_format=torch.channels_last)
            return kernels.finish_convolution(values, layer.bias, shortcut, limits)
        if layer.bias is not None:
            values += layer.bias[:, None, None]
        if shortcut is not None:
            values += shortcut
        return values if limits is None else values.clamp_(*limits)

    def _get_limits(self) -> tuple[float, float] | None:
        if self.rectifier == "none":
            return None
        return (0.0, math.inf) if self.rectifier == "relu" else (self.limits[0], self.limits[1])


def _is_channels_last(values: Tensor) -> bool:
    return values.permute(0, 2, 3, 1).is_contiguous()


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the fused operators for networks of `dtype` on `device`."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def fuse_for_inference(
    module: nn.Module, method: str, *, on_gpu: bool = False
) -> Callable[[Tensor], Tensor]:
    """Trace `method` of `module`, from one map to one tensor, and fuse its convolutions.

    The result is only for inference: it uses the filters as they are now, and has no dropout. On a GPU its
    maps are channels last in memory.
    """
    traced = _trace(module, method, without=(nn.Identity, nn.Dropout))
    for node in list(traced.graph.nodes):
        layer = _get_layer(traced, node)
        if isinstance(layer, nn.Conv2d):
            fused = FusedConv2dOnGpu(layer) if on_gpu else FusedConv2d(layer)
            _fuse_node(traced, node, fused)
    if on_gpu and isinstance(module, Backbone):
        _read_cells_as_stored(traced, module.channels)
    traced.delete_all_unused_submodules()
    return _compile(traced)


def _read_cells_as_stored(traced: fx.GraphModule, channels: int) -> None:
    """Let a linear layer after the input read its cells as they are in memory, channels last.

    Else each call would first copy all pooled features to the order of the layer's weights.
    """
    (start,) = (node for node in traced.graph.nodes if node.op == "placeholder")
    following, flattens = _get_only_user(start), list[fx.Node]()
    while following is not None and _is_flatten(traced, following):
        flattens.append(following)
        following = _get_only_user(following)
    layer = None if following is None else _get_layer(traced, following)
    if following is None or not flattens or not isinstance(layer, nn.Linear):
        return
    traced.add_submodule(str(following.target), CellsLinear(layer, channels))
    for flatten in flattens:
        _replace(flatten, start)


def _is_flatten(traced: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(_get_layer(traced, node), nn.Flatten)
    return node.target in ("flatten", torch.flatten) and tuple(node.args[1:]) == (1,)


class CellsLinear(nn.Module):
    """A linear layer on flattened maps `(R, C, s, s)`, whose weights are in the order of channels last."""

    def __init__(self, layer: nn.Linear, channels: int) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape
        by_cell = layer.weight.view(outputs, channels, inputs // channels).transpose(1, 2)
        self.weight = nn.Parameter(by_cell.flatten(1).contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """Compute `(R, width)` from maps `(R, C, s, s)`."""
        return functional.linear(input.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)


def fuse_frozen_layers(
    module: nn.Module, method: str, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Trace `method` for training: fuse the layers before the first trained layer, and keep the others.

    The fused layers keep their current values, with norms folded in, and compute in `dtype`, the dtype of
    the input; the other layers are shared with `module`.
    """
    traced = _trace(module, method, without=(nn.Identity,))
    for node in list(traced.graph.nodes):
        layer = _get_layer(traced, node)
        if layer is not None and any(p.requires_grad for p in layer.parameters()):
            break
        if isinstance(layer, nn.Conv2d):
            own = layer.bake() if isinstance(layer, FrozenNormConv2d) else deepcopy(layer)
            _fuse_node(traced, node, FusedConv2d(own).requires_grad_(False).to(dtype))
    return _compile(traced)


def _trace(module: nn.Module, method: str, without: tuple[type[nn.Module], ...]) -> fx.GraphModule:
    """Trace a method, and drop layers of the types `without`, which return their input."""
    tracer = _Tracer()
    graph = tracer.trace(_Method(module, method))
    traced = fx.GraphModule(tracer.root, graph)
    for node in list(traced.graph.nodes):
        if isinstance(_get_layer(traced, node), without):
            _replace(node, node.args[0])
    return traced


def _compile(traced: fx.GraphModule) -> Callable[[Tensor], Tensor]:
    traced.graph.lint()
    traced.recompile()
    function: Callable[[Tensor], Tensor] = traced
    return function


def _fuse_node(
    traced: fx.GraphModule, node: fx.Node, layer: FusedConv2d | FusedConv2dOnGpu
) -> None:
    """Replace a convolution, and the following operations that can be fused with it, with `layer`."""
    traced.add_submodule(str(node.target), layer)
    following = _get_only_user(node)
    if following is not None and following.target in _ADDITIONS and not following.kwargs:
        shortcuts = [other for other in following.args if other is not node]
        if len(shortcuts) == 1 and isinstance(shortcuts[0], fx.Node):  # neither x + x nor x + 1
            following.prepend(node)  # the shortcut may be computed after the convolution
            node.args = (*node.args, shortcuts[0])
            _replace(following, node)
            following = _get_only_user(node)
    if following is not None:
        kind = (
            type(_get_layer(traced, following))
            if following.op == "call_module"
            else following.target
        )
        if kind in _RECTIFIERS:
            layer.rectifier, layer.limits = _RECTIFIERS[kind]
            _replace(following, node)


def _get_layer(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _get_only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _replace(node: fx.Node, by: Any) -> None:
    """Remove a node from its graph; its users use `by` instead."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


class _Method(nn.Module):
    """A module whose forward is a method of another module."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = getattr(self.module, self.name)(input)
        return result


class _Tracer(fx.Tracer):
    """Traces into every module except torch's own layers and all convolutions."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)
