import pytest
import torch
import torchvision

from pipeline.detector.backbones.backbone import mean_over_cells
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.backbones.frozen_norm import (
    FrozenNormConv2d,
    PaddedConv2d,
    bake_frozen_norms,
)
from pipeline.detector.network import Architecture, FastRCNN, build
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import random_model

ROIS = torch.tensor([[0, 4.0, 5.0, 60.0, 70.0], [0, 30.0, 30.0, 90.0, 64.0]])


@pytest.mark.parametrize("widths", [None, (16, 8)])
@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_and_freezing_of_every_network(name, widths):
    with torch.device("meta"):  # shapes alone, without memory or time
        model = FastRCNN(Architecture(("a", "b"), name, fc_widths=widths))
        images = torch.zeros(1, 3, 96, 128)
        features = model.features(images)
        logits, deltas = model(images, ROIS)
    assert features.shape[1] == model.backbone.channels
    for cells, pixels in zip(features.shape[2:], (96, 128), strict=True):
        assert abs(cells - pixels / model.backbone.stride) <= 1
    assert logits.shape == (2, 3)
    assert deltas.shape == (2, 12)
    stages = list(model.backbone.stages())
    until = BACKBONES[name].freeze_until
    frozen = stages[: stages.index(until) + 1] if until != "none" else []
    for stage, modules in model.backbone.stages().items():
        flags = {p.requires_grad for module in modules for p in module.parameters()}
        assert flags == {stage not in frozen}
    staged = sum(
        p.numel() for ms in model.backbone.stages().values() for m in ms for p in m.parameters()
    )
    assert staged == sum(p.numel() for p in model.backbone.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0", "resnet18"])
def test_gradients_reach_all_but_the_frozen_stages(name):
    model = build(Architecture(("a", "b"), name))
    logits, deltas = model(torch.randn(1, 3, 64, 96), ROIS)
    (logits.sum() + deltas.sum()).backward()
    for parameter in model.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


@pytest.mark.parametrize(
    ("name", "width", "weights"),
    [
        ("caffenet", 4096, {"fc6": (4096, 9216), "fc7": (4096, 4096)}),
        ("vgg_cnn_m_1024", 1024, {"fc6": (4096, 18432), "fc7": (1024, 4096)}),
        ("vgg16", 4096, {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096)}),
        ("alexnet", 4096, {"classifier.1": (4096, 9216), "classifier.4": (4096, 4096)}),
    ],
)
def test_own_heads(name, width, weights):
    with torch.device("meta"):
        model = FastRCNN(Architecture(("a", "b"), name))
        logits, deltas = model(torch.zeros(1, 3, 64, 64), ROIS)
    assert model.backbone.width == width
    assert (logits.shape, deltas.shape) == ((2, 3), (2, 12))
    for layer, shape in weights.items():
        assert tuple(model.backbone.get_submodule(layer).weight.shape) == shape


def test_the_papers_convolutions():
    with torch.device("meta"):
        s, m = (FastRCNN(Architecture(("a",), n)).backbone for n in ("caffenet", "vgg_cnn_m_1024"))
    channels = {
        n: [getattr(b, f"conv{i}").out_channels for i in range(1, 6)]
        for n, b in (("s", s), ("m", m))
    }
    assert channels == {"s": [96, 256, 384, 384, 256], "m": [96, 256, 512, 512, 512]}
    assert [getattr(s, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]


def test_response_normalisation_equals_torchs():
    from pipeline.detector.backbones.caffe import _normalised

    features = torch.randn(2, 7, 3, 4) * 20
    expected = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(features)
    torch.testing.assert_close(_normalised(features, 5e-4, 2.0), expected)


def test_local_response_normalisation_of_large_values_in_half_precision():
    from pipeline.detector.backbones.caffe import _normalised

    features = torch.full((1, 8, 2, 2), 300.0)
    found = _normalised(features.half(), 1e-4, 1.0)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), _normalised(features, 1e-4, 1.0), rtol=1e-3, atol=0)


def test_initialisation_and_seed():
    first, again, other = (build(Architecture(("a",), "tiny"), seed) for seed in (0, 0, 1))
    assert first.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert first.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.2)
    assert not first.cls_score.bias.any()
    assert not first.bbox_pred.bias.any()
    assert torch.equal(first.cls_score.weight, again.cls_score.weight)
    assert not torch.equal(first.cls_score.weight, other.cls_score.weight)


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build(Architecture(("a",), "tiny"))
    assert torch.equal(torch.rand(1), expected)


def test_freeze_until():
    def trained(until):
        model = build(Architecture(("a",), "resnet18", freeze_until=until))
        return {n.split(".")[0] for n, p in model.backbone.named_parameters() if p.requires_grad}

    assert trained("none") == {"conv1", "layer1", "layer2", "layer3", "layer4"}
    assert trained("layer2") == {"layer3", "layer4"}
    assert trained(None) == {"layer2", "layer3", "layer4"}
    with pytest.raises(InvalidConfiguration, match=r"layer9.*conv1, layer1"):
        trained("layer9")


def randomised_norms(module):
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                tensor.data.uniform_(0.5, 2)
            for tensor in (layer.bias, layer.running_mean):
                tensor.data.normal_()
    return module.eval()


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_expanded", "resnet18"])
def test_frozen_norms_equal_torchvisions_network(name):
    torch.manual_seed(0)
    network = getattr(torchvision.models, name.removesuffix("_expanded"))
    reference = randomised_norms(network(num_classes=2))
    padding = "symmetric" if name.startswith("mobilenet") else None
    backbone = build(Architecture(("a",), name, padding=padding)).backbone
    theirs = reference.state_dict()
    names = backbone.renamed()
    backbone.load_state_dict({own: theirs[names.get(own, own)] for own in backbone.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        if name.startswith("mobilenet"):
            expected = reference.features(images).mean(dim=(2, 3))
        else:
            reference.fc = torch.nn.Identity()
            expected = reference(images)
        torch.testing.assert_close(
            backbone.head(backbone.trunk(images)), expected, rtol=1e-3, atol=1e-4
        )
        bake_frozen_norms(backbone)
        assert not any(isinstance(layer, FrozenNormConv2d) for layer in backbone.modules())
        torch.testing.assert_close(
            backbone.head(backbone.trunk(images)), expected, rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    "name", ["vgg16", "alexnet", "resnet18", "resnet50", "mobilenet_v2", "squeezenet1_0"]
)
def test_every_tensor_has_its_name_and_shape_in_torchvisions_network(name):
    with torch.device("meta"):
        backbone = FastRCNN(Architecture(("a",), name)).backbone
        theirs = getattr(torchvision.models, name)().state_dict()
    names = backbone.renamed()
    for own, tensor in backbone.state_dict().items():
        assert theirs[names.get(own, own)].shape == tensor.shape


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("height", "width", "pads"),
    [(8, 8, (0, 1, 0, 1)), (9, 9, (1, 1, 1, 1)), (8, 9, (1, 1, 0, 1)), (9, 8, (0, 1, 1, 1))],
)
def test_same_padding(height, width, pads, groups):
    plain = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False, groups=groups)
    layer = FrozenNormConv2d(plain, torch.nn.BatchNorm2d(4, eps=0.0), same_padding=True)
    images = torch.randn(1, 2, height, width, requires_grad=True)
    padded = torch.nn.functional.pad(images, pads)
    expected = torch.nn.functional.conv2d(padded, plain.weight, stride=2, groups=groups)
    assert expected.shape[2:] == (-(-height // 2), -(-width // 2))
    found = layer(images)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * weights).sum(), (images, plain.weight))
    ours = torch.autograd.grad((found * weights).sum(), (images, layer.weight))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_product_over_the_map_is_torchs_convolution(threads, dtype):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(6, 10, 1).to(dtype)
    layer = PaddedConv2d(plain, same_padding=False, bias=True).to(dtype)
    layer.load_state_dict(plain.state_dict())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        images = torch.randn(1, 6, 160, 160, dtype=dtype).to(memory_format=torch.channels_last)
        outputs = [convolution(images) for convolution in (plain, layer)]
        weights = torch.randn_like(outputs[0])
        gradients = [
            torch.autograd.grad((output * weights).sum(), list(convolution.parameters()))
            for output, convolution in zip(outputs, (plain, layer), strict=True)
        ]
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*outputs)
    rounding = {"rtol": 1e-3, "atol": 1e-2} if dtype == torch.float32 else {}  # sums of 25,600
    torch.testing.assert_close(*gradients, **rounding)


@pytest.mark.parametrize("training", [False, True])
def test_mean_over_cells(training):
    cells = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(1, 3, 2, 4)
    cells = cells.to(memory_format=torch.channels_last)
    assert mean_over_cells(cells, training).tolist() == [[3.5, 11.5, 19.5]]


def test_fitting_a_few_rois():
    torch.manual_seed(0)
    model = build(Architecture(("a", "b"), "tiny")).train()
    images = torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[0, 0, 0, 30, 30], [0, 30, 0, 60, 30], [0, 20, 30, 60, 60.0]])
    labels = torch.tensor([0, 1, 2])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images, boxes)[0], labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    assert random_model().training is False
