"""Fused layers compute the same as the separate ones."""

import pytest
import torch
from torch import nn

from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.fusion import (
    CellsLinear,
    FusedConv2d,
    can_fuse,
    fuse_for_inference,
    fuse_frozen_layers,
)
from tests.detector.networks import build_random_network

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(
    not can_fuse(CPU, torch.float32), reason="this torch has no oneDNN"
)


@needs_onednn
@pytest.mark.parametrize(
    ("name", "rectified", "summed"),
    [
        ("tiny", 0, 0),  # a GroupNorm is between convolution and ReLU
        ("caffenet", 5, 0),
        ("alexnet", 5, 0),
        ("squeezenet1_0", 25, 0),
        ("resnet18", 17, 8),
        ("mobilenet_v2", 35, 10),
        ("mobilenet_v2_expanded", 35, 10),
    ],
)
def test_a_fused_network_equals_the_separate_layers(name, rectified, summed):
    torch.manual_seed(0)
    network = build_random_network(name).requires_grad_(False)
    bake_frozen_norms(network.backbone)
    network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 97, 130).to(memory_format=torch.channels_last)
    pooled = torch.randn(5, network.backbone.channels, network.roi_size, network.roi_size)
    convolutions = sums = 0
    for method, values in (("trunk", images), ("head", pooled)):
        fused = fuse_for_inference(network.backbone, method)
        expected = getattr(network.backbone, method)(values)
        torch.testing.assert_close(fused(values), expected, rtol=1e-4, atol=1e-4)
        assert not any(type(layer) in {nn.Identity, nn.Dropout} for layer in fused.modules())
        convolutions += sum(
            layer.rectifier != "none" for layer in fused.modules() if isinstance(layer, FusedConv2d)
        )
        sums += sum(
            len(node.args) == 2 and "conv" in str(node.target)
            for node in fused.graph.nodes
            if node.op == "call_module"
        )
    assert (convolutions, sums) == (rectified, summed)


@needs_onednn
@pytest.mark.parametrize(
    ("name", "until", "count"),
    [
        ("caffenet", "conv1", 1),
        ("squeezenet1_0", "fire3", 7),
        ("resnet18", "layer1", 5),
        ("mobilenet_v2_expanded", "block6", 18),
        ("mobilenet_v2", "none", 0),
    ],
)
def test_training_fuses_only_the_frozen_layers(name, until, count):
    torch.manual_seed(0)
    network = build_random_network(name).requires_grad_(True).to(memory_format=torch.channels_last)
    network.backbone.freeze(until)
    trained = [p for p in network.parameters() if p.requires_grad]
    images = torch.randn(1, 3, 96, 130).to(memory_format=torch.channels_last)
    fused = fuse_frozen_layers(network.backbone, "trunk", torch.float32)
    assert sum(isinstance(layer, FusedConv2d) for layer in fused.modules()) == count
    outputs = [trunk(images) for trunk in (network.backbone.trunk, fused)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    gradients = [
        torch.autograd.grad(output.square().mean(), trained, allow_unused=True)
        for output in outputs
    ]
    for expected, gradient in zip(*gradients, strict=True):
        assert (expected is None) == (gradient is None)
        if expected is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


class Shortcuts(nn.Module):
    """Sums that cannot be fused, or only once."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.third, self.fourth = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        a = self.first(x)
        b = self.second(x)
        c = self.third(x)
        d = self.fourth(x)
        return torch.relu(a + b) + a + 1 + (c + c) + torch.add(d, x, alpha=2)


@needs_onednn
def test_sums_that_cannot_be_fused_stay_correct():
    torch.manual_seed(1)
    module = Shortcuts().requires_grad_(False)
    images = torch.randn(1, 3, 5, 6)
    torch.testing.assert_close(fuse_for_inference(module, "forward")(images), module(images))


@pytest.mark.parametrize(
    ("name", "flattened"),
    [
        ("vgg16", True),
        ("caffenet", True),
        ("resnet18", False),
        ("mobilenet_v2", False),
        ("mobilenet_v2_expanded", False),
        ("tiny", True),
    ],
)
def test_a_network_fused_for_a_gpu_equals_the_separate_layers(name, flattened):
    torch.manual_seed(0)
    network = build_random_network(name).requires_grad_(False).eval()
    bake_frozen_norms(network.backbone)
    network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 97, 130).to(memory_format=torch.channels_last)
    pooled = torch.randn(5, network.backbone.channels, network.roi_size, network.roi_size)
    for method, values in (("trunk", images), ("head", pooled)):
        fused = fuse_for_inference(network.backbone, method, on_gpu=True)
        expected = getattr(network.backbone, method)(values)
        torch.testing.assert_close(fused(values), expected, rtol=1e-4, atol=1e-4)
    assert any(isinstance(layer, CellsLinear) for layer in fused.modules()) == flattened


def test_only_devices_and_dtypes_with_the_operators_can_fuse():
    assert not can_fuse(torch.device("cuda"), torch.float32)
    assert not can_fuse(CPU, torch.float16)
