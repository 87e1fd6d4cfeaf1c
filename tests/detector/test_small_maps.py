"""Convolutions on 4x4 maps with fewer multiplications equal torch's."""

import pytest
import torch
from torch import nn

from pipeline.detector.small_maps import (
    MIN_CHANNELS,
    PRODUCTS,
    SmallMapConvolution,
    supports_small_maps,
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("summed", [True, False])
def test_a_convolution_equals_torch_in_double_precision(bias, summed):
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 70, 3, padding=1, bias=bias).double().requires_grad_(False)
    maps = torch.randn(5, 64, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)
    shortcut = torch.randn(5, 70, 4, 4, dtype=torch.float64) if summed else None
    expected = layer(maps) + (0 if shortcut is None else shortcut)
    output = SmallMapConvolution(layer)(maps, shortcut)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_nearly_as_close_as_the_direct_convolution():
    torch.manual_seed(1)
    layer = nn.Conv2d(256, 256, 3, padding=1).requires_grad_(False)
    maps = torch.randn(20, 256, 4, 4).relu().to(memory_format=torch.channels_last)
    exact = layer(maps)
    half, small = layer.bfloat16(), maps.bfloat16()
    direct = (half(small).float() - exact).square().mean().sqrt() / exact.std()
    error = (SmallMapConvolution(half)(small).float() - exact).square().mean().sqrt() / exact.std()
    assert error < 3 * direct
    assert error < 0.01


def test_the_number_of_multiplications_halves():
    nonzero = 3 + 3 + 2 + 2  # taps inside the map, summed over the four outputs of one dimension
    assert PRODUCTS == 49
    assert nonzero**2 > 2 * PRODUCTS


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
        {"kernel_size": 5},
        {"out_channels": MIN_CHANNELS - 1},
    ],
)
def test_other_convolutions_are_not_supported(options):
    usual = {"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1}
    assert supports_small_maps(nn.Conv2d(**usual))
    assert not supports_small_maps(nn.Conv2d(**(usual | options)))
