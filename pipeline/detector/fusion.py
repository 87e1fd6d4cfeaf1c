"""Convolutions that rectify, and add a shortcut, while their output is still in the registers.

On the CPU torch computes `relu(conv(x) + shortcut)` in three passes over memory; in bf16 the passes after
the convolution took 7 % of a MobileNetV2 head's time and a fifth of its trunk's. oneDNN does all in one.
`torch.compile` uses the same operators (`torch.ops.mkldnn`), but compiles anew for other shapes; here the
layers are traced and replaced directly, which takes milliseconds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pipeline.detector.backbones.frozen_norm import FrozenNormConv2d, PaddedConv2d
from pipeline.detector.small_maps import SIDE, SmallMapConvolution, suits

_RECTIFIERS: dict[Any, tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    torch.relu: ("relu", []),
    functional.relu: ("relu", []),
}
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class FusedConv2d(nn.Module):
    """A convolution with what follows it: the sum with a shortcut, a ReLU or ReLU6, both or neither."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.rectifier, self.limits = "none", list[float]()
        self.suits_small_maps = suits(convolution)
        self.on_small_maps: SmallMapConvolution | None = None

    def forward(self, input: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """The map `(B, C', h', w')` of `input` `(B, C, h, w)`; `shortcut` is of the result's shape."""
        layer = self.convolution
        if self.suits_small_maps and input.shape[2:] == (SIDE, SIDE):
            if self.on_small_maps is None:  # its filters take five times the memory
                self.on_small_maps = SmallMapConvolution(layer)
            return self._rectified(self.on_small_maps(input, shortcut))
        weight, padding = layer.weight, layer.padding
        if isinstance(layer, PaddedConv2d):
            input, weight, padding = layer.padded(input, weight)
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

    def _rectified(self, values: Tensor) -> Tensor:
        if self.rectifier == "relu":
            return values.relu_()
        return values if self.rectifier == "none" else values.clamp_(*self.limits)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this torch has the operators for networks of `dtype` on `device`."""
    if device.type != "cpu" or not torch._C._has_mkldnn:
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or (
        dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def fused(module: nn.Module, part: str) -> Callable[[Tensor], Tensor]:
    """The method `part` of `module`, from one map to one tensor, with its convolutions fused.

    For inference alone: filters are taken as they are now, dropout is left out.
    """
    tracer = _Tracer()
    graph = tracer.trace(_Method(module, part))
    traced = fx.GraphModule(tracer.root, graph)
    for node in list(graph.nodes):
        if isinstance(_layer(traced, node), nn.Identity | nn.Dropout):
            _replace(node, node.args[0])
    for node in list(graph.nodes):
        layer = _layer(traced, node)
        if isinstance(layer, nn.Conv2d):
            _fuse(traced, node, FusedConv2d(layer))
    traced.delete_all_unused_submodules()
    graph.lint()
    traced.recompile()
    result: Callable[[Tensor], Tensor] = traced
    return result


def frozen_layers_fused(
    module: nn.Module, part: str, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """As `fused`, but for training: the layers up to the first that is trained, the others stay.

    The frozen layers are taken as they are now, with their norms folded, and compute in `dtype`, the
    input's; the others are the module's own.
    """
    tracer = _Tracer()
    graph = tracer.trace(_Method(module, part))
    traced = fx.GraphModule(tracer.root, graph)
    for node in list(graph.nodes):
        if isinstance(_layer(traced, node), nn.Identity):
            _replace(node, node.args[0])
    for node in list(graph.nodes):
        layer = _layer(traced, node)
        if layer is not None and any(p.requires_grad for p in layer.parameters()):
            break
        if isinstance(layer, nn.Conv2d):
            own = layer.baked() if isinstance(layer, FrozenNormConv2d) else deepcopy(layer)
            _fuse(traced, node, FusedConv2d(own).requires_grad_(False).to(dtype))
    graph.lint()
    traced.recompile()
    result: Callable[[Tensor], Tensor] = traced
    return result


def _fuse(traced: fx.GraphModule, node: fx.Node, layer: FusedConv2d) -> None:
    """Put `layer` in the place of a convolution, and of what follows that it can do."""
    traced.add_submodule(str(node.target), layer)
    following = _only_user(node)
    if following is not None and following.target in _ADDITIONS and not following.kwargs:
        shortcuts = [other for other in following.args if other is not node]
        if len(shortcuts) == 1 and isinstance(shortcuts[0], fx.Node):  # not x + x, not x + 1
            following.prepend(node)  # the shortcut may be computed after the convolution
            node.args = (*node.args, shortcuts[0])
            _replace(following, node)
            following = _only_user(node)
    if following is not None:
        kind = (
            type(_layer(traced, following)) if following.op == "call_module" else following.target
        )
        if kind in _RECTIFIERS:
            layer.rectifier, layer.limits = _RECTIFIERS[kind]
            _replace(following, node)


def _layer(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _replace(node: fx.Node, by: Any) -> None:
    """Take a node out of its graph; who used it uses `by`."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


class _Method(nn.Module):
    """A module whose forward is a method of another."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = getattr(self.module, self.name)(input)
        return result


class _Tracer(fx.Tracer):
    """Looks into every module but torch's own and our convolutions."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)
