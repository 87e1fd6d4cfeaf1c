"""Convolutions that fold in the frozen BatchNorm after them on the fly.

A frozen BatchNorm multiplies each channel by a constant and adds another. Multiplying the filters
instead gives the same output and the same gradient of the filters, and saves a pass over the feature
map in forward and backward.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pipeline.detector.backbones.padding import PaddedConv2d


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

    def compute_gain_and_shift(self) -> tuple[Tensor, Tensor]:
        """Compute the factor and the constant to add, per channel `(C,)`."""
        gain = self.weight * torch.rsqrt(self.running_var + self.eps)
        return gain, self.bias - self.running_mean * gain


class FrozenNormConv2d(PaddedConv2d):
    """A convolution without bias, and the frozen BatchNorm that follows it."""

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, same_padding: bool) -> None:
        super().__init__(convolution, same_padding=same_padding, bias=False)
        self.weight = convolution.weight
        self.norm = FrozenNorm(norm.num_features, norm.eps)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve and normalise `input` `(B, C, h, w)` to `(B, C', h', w')`."""
        gain, shift = self.norm.compute_gain_and_shift()
        return self.convolve(input, self.weight * gain[:, None, None, None], shift)

    def bake(self) -> PaddedConv2d:
        """Return a convolution that computes the same without the norm, for inference."""
        gain, shift = self.norm.compute_gain_and_shift()
        plain = PaddedConv2d(self, same_padding=self.same_padding, bias=True)
        plain.weight = nn.Parameter(self.weight.detach() * gain[:, None, None, None])
        plain.bias = nn.Parameter(shift)
        return plain


def fold_frozen_norms(module: nn.Module, same_padding: bool = False) -> dict[str, str]:
    """Join each convolution in `module` with the BatchNorm registered after it.

    Returns the previous names of tensors by their new names: `0.norm.bias` was `1.bias`.
    """
    pretrained_names: dict[str, str] = {}
    for path, parent in list(module.named_modules()):
        prefix = f"{path}." if path else ""
        children = list(parent.named_children())
        for (name, layer), (norm_name, norm) in itertools.pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, FrozenNormConv2d(layer, norm, same_padding))
                setattr(parent, norm_name, nn.Identity())
                for tensor in ("weight", "bias", "running_mean", "running_var"):
                    pretrained_names[f"{prefix}{name}.norm.{tensor}"] = (
                        f"{prefix}{norm_name}.{tensor}"
                    )
    return pretrained_names


def bake_frozen_norms(module: nn.Module) -> None:
    """Replace each `FrozenNormConv2d` in `module` with a plain convolution that computes the same."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, FrozenNormConv2d):
                setattr(parent, name, layer.bake())
