"""Fused layers compute what the separate ones do."""

import pytest
import torch
from torch import nn

from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.fusion import FusedConv2d, can_fuse, frozen_layers_fused, fused
from tests.detector.networks import random_model

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(
    not can_fuse(CPU, torch.float32), reason="this torch has no oneDNN"
)


@needs_onednn
@pytest.mark.parametrize(
    ("name", "rectified", "summed"),
    [
        ("tiny", 0, 0),  # a GroupNorm stands between convolution and ReLU
        ("caffenet", 5, 0),
        ("alexnet", 5, 0),
        ("squeezenet1_0", 25, 0),
        ("resnet18", 17, 8),
        ("mobilenet_v2", 35, 10),
        ("mobilenet_v2_expanded", 35, 10),
    ],
)
def test_equals_the_separate_layers(name, rectified, summed):
    torch.manual_seed(0)
    model = random_model(name).requires_grad_(False)
    bake_frozen_norms(model.backbone)
    model.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 97, 130).to(memory_format=torch.channels_last)
    pooled = torch.randn(5, model.backbone.channels, model.roi_size, model.roi_size)
    convolutions = sums = 0
    for part, values in (("trunk", images), ("head", pooled)):
        quick = fused(model.backbone, part)
        expected = getattr(model.backbone, part)(values)
        torch.testing.assert_close(quick(values), expected, rtol=1e-4, atol=1e-4)
        assert not any(type(layer) in {nn.Identity, nn.Dropout} for layer in quick.modules())
        convolutions += sum(
            layer.rectifier != "none" for layer in quick.modules() if isinstance(layer, FusedConv2d)
        )
        sums += sum(
            len(node.args) == 2 and "conv" in str(node.target)
            for node in quick.graph.nodes
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
def test_frozen_layers_alone_are_fused_for_training(name, until, count):
    torch.manual_seed(0)
    model = random_model(name).requires_grad_(True).to(memory_format=torch.channels_last)
    model.backbone.freeze(until)
    trained = [p for p in model.parameters() if p.requires_grad]
    images = torch.randn(1, 3, 96, 130).to(memory_format=torch.channels_last)
    quick = frozen_layers_fused(model.backbone, "trunk", torch.float32)
    assert sum(isinstance(layer, FusedConv2d) for layer in quick.modules()) == count
    outputs = [trunk(images) for trunk in (model.backbone.trunk, quick)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    gradients = [
        torch.autograd.grad(output.square().mean(), trained, allow_unused=True)
        for output in outputs
    ]
    for theirs, ours in zip(*gradients, strict=True):
        assert (theirs is None) == (ours is None)
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


class Shortcuts(nn.Module):
    """Sums that must stay as they are, or may not be taken twice."""

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
def test_sums_of_other_kinds_stay():
    torch.manual_seed(1)
    module = Shortcuts().requires_grad_(False)
    images = torch.randn(1, 3, 5, 6)
    torch.testing.assert_close(fused(module, "forward")(images), module(images))


def test_only_where_the_operators_are():
    assert not can_fuse(torch.device("cuda"), torch.float32)
    assert not can_fuse(CPU, torch.float16)
