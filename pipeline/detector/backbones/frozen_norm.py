"""Convolutions with the frozen BatchNorm after them folded in on the fly.

A frozen BatchNorm multiplies each channel by a constant and adds another. Multiplying the filters
instead gives the same output and the same gradient of the filters, and spares a pass over the feature
map forward and backward.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrozenNorm(nn.Module):
    """The constants of a BatchNorm that is neither trained nor updated."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def gain_and_shift(self) -> tuple[Tensor, Tensor]:
        """Per channel `(C,)`: what multiplies, and what is added then."""
        gain = self.weight * torch.rsqrt(self.running_var + self.eps)
        return gain, self.bias - self.running_mean * gain


class PaddedConv2d(nn.Conv2d):
    """A convolution that can pad as TensorFlow's SAME does where it is strided."""

    def __init__(self, like: nn.Conv2d, *, same_padding: bool, bias: bool) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,  # type: ignore[arg-type]
            like.stride,  # type: ignore[arg-type]
            like.padding,  # type: ignore[arg-type]
            like.dilation,  # type: ignore[arg-type]
            like.groups,
            bias,
        )
        # Unstrided, both ways to pad are the same.
        self.same_padding = same_padding and max(self.stride) > 1 and max(self.kernel_size) > 1

    def forward(self, input: Tensor) -> Tensor:
        """The convolved map `(B, C', h', w')` of `input` `(B, C, h, w)`."""
        return self.convolved(input, self.weight, self.bias)

    def convolved(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same with other filters than its own.

        oneDNN's gradient of a strided depthwise convolution took 130 ms in bf16 and 2 ms in fp32 for 64
        maps of 576x7x7, so that one layer is left out of autocast.
        """
        if self.groups > 1 and max(self.stride) > 1 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                bias = None if bias is None else bias.float()
                return self.convolved(input.float(), weight.float(), bias).to(input.dtype)
        input, weight, padding = self.padded(input, weight)
        if self._is_product(input):
            return torch.mkldnn_convolution(input, weight, bias, (0, 0), (1, 1), (1, 1), 1)
        return functional.conv2d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )

    def padded(self, input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Input, filters and the padding on both sides that the convolution is to add by itself.

        What SAME has more of after the map than before it is a border of the input. A depthwise
        convolution has it as zeros that its filters begin with: copying the map took longer than it.
        """
        if not self.same_padding:
            return input, weight, self.padding  # type: ignore[return-value]
        (top, bottom), (left, right) = self._same(input)
        if (top, left) == (bottom, right):
            return input, weight, (top, left)
        if self.groups > 1:
            return (
                input,
                functional.pad(weight, (right - left, 0, bottom - top, 0)),
                (bottom, right),
            )
        return functional.pad(input, (left, right, top, bottom)), weight, (0, 0)

    def _same(self, input: Tensor) -> list[tuple[int, int]]:
        """Padding before and after, down and across."""
        return [
            _tensorflow_padding(side, kernel, stride)
            for side, kernel, stride in zip(
                input.shape[-2:], self.kernel_size, self.stride, strict=True
            )
        ]

    def _is_product(self, input: Tensor) -> bool:
        """Whether this is a 1x1 convolution that torch would not hand to oneDNN.

        With one thread and few images it multiplies matrices instead, after writing the bias to the
        whole map, which took a fifth of the time of MobileNetV2's frozen blocks.
        """
        return (
            self.kernel_size == (1, 1)
            and self.stride == (1, 1)
            and self.groups == 1
            and input.device.type == "cpu"
            and input.dtype == torch.float32
            and torch.get_num_threads() == 1
            and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
            and not torch.is_autocast_enabled("cpu")
        )


class FrozenNormConv2d(PaddedConv2d):
    """A convolution without bias, and the frozen BatchNorm that follows it."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, same_padding: bool) -> None:
        super().__init__(convolution, same_padding=same_padding, bias=False)
        self.weight = convolution.weight
        self.norm = FrozenNorm(norm.num_features, norm.eps)

    def forward(self, input: Tensor) -> Tensor:
        """The convolved and normalised map `(B, C', h', w')` of `input` `(B, C, h, w)`."""
        gain, shift = self.norm.gain_and_shift()
        return self.convolved(input, self.weight * gain[:, None, None, None], shift)

    def baked(self) -> PaddedConv2d:
        """The same function without the norm, for inference."""
        gain, shift = self.norm.gain_and_shift()
        plain = PaddedConv2d(self, same_padding=self.same_padding, bias=True)
        plain.weight = nn.Parameter(self.weight.detach() * gain[:, None, None, None])
        plain.bias = nn.Parameter(shift)
        return plain


def _tensorflow_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Before and after, by SAME: ceil(side / stride) cells, an odd pixel of padding goes after."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def fold_frozen_norms(module: nn.Module, same_padding: bool = False) -> dict[str, str]:
    """Join each convolution with the BatchNorm registered next to it, in all of `module`.

    Returns the new names of tensors with the old ones: `0.norm.bias` was `1.bias`.
    """
    renamed: dict[str, str] = {}
    for path, parent in list(module.named_modules()):
        prefix = f"{path}." if path else ""
        children = list(parent.named_children())
        for (name, layer), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, FrozenNormConv2d(layer, norm, same_padding))
                setattr(parent, norm_name, nn.Identity())
                for tensor in ("weight", "bias", "running_mean", "running_var"):
                    renamed[f"{prefix}{name}.norm.{tensor}"] = f"{prefix}{norm_name}.{tensor}"
    return renamed


def bake_frozen_norms(module: nn.Module) -> None:
    """Replace each `FrozenNormConv2d` in `module` by a plain convolution that computes the same."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, FrozenNormConv2d):
                setattr(parent, name, layer.baked())
