"""Convolutions that can pad as TensorFlow's SAME does."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class PaddedConv2d(nn.Conv2d):
    """A convolution that, if strided, can pad as TensorFlow's SAME does."""

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
        # Without a stride, both kinds of padding are the same.
        self.same_padding = same_padding and max(self.stride) > 1 and max(self.kernel_size) > 1

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `input` `(B, C, h, w)` to `(B, C', h', w')`."""
        return self.convolve(input, self.weight, self.bias)

    def convolve(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve with these filters in place of the layer's own.

        oneDNN's gradient of a strided depthwise convolution took 130 ms in bf16 and 2 ms in fp32 for 64
        maps of 576x7x7, so autocast does not apply to this kind of layer.
        """
        if self.groups > 1 and max(self.stride) > 1 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                bias = None if bias is None else bias.float()
                return self.convolve(input.float(), weight.float(), bias).to(input.dtype)
        input, weight, padding = self.pad_input(input, weight)
        if self._is_matrix_product(input):
            return torch.mkldnn_convolution(input, weight, bias, (0, 0), (1, 1), (1, 1), 1)
        return functional.conv2d(
            input, weight, bias, self.stride, padding, self.dilation, self.groups
        )

    def pad_input(self, input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Return input, filters, and the padding that the convolution must add on both sides.

        If SAME pads more after the map than before, the input gets a border. A depthwise convolution
        instead gets filters that start with zeros: copying the map took longer than the convolution.
        """
        if not self.same_padding:
            return input, weight, self.padding  # type: ignore[return-value]
        (top, bottom), (left, right) = self._compute_same_padding(input)
        if (top, left) == (bottom, right):
            return input, weight, (top, left)
        if self.groups > 1:
            return (
                input,
                functional.pad(weight, (right - left, 0, bottom - top, 0)),
                (bottom, right),
            )
        return functional.pad(input, (left, right, top, bottom)), weight, (0, 0)

    def _compute_same_padding(self, input: Tensor) -> list[tuple[int, int]]:
        """Compute the padding before and after the map, vertical first."""
        return [
            _split_padding(side, kernel, stride)
            for side, kernel, stride in zip(
                input.shape[-2:], self.kernel_size, self.stride, strict=True
            )
        ]

    def _is_matrix_product(self, input: Tensor) -> bool:
        """Whether this is a 1x1 convolution that torch would not pass to oneDNN.

        With one thread and few images torch multiplies matrices instead, after it writes the bias to the
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


def _split_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Split SAME's padding into before and after: ceil(side / stride) cells, an odd pixel goes after."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2
