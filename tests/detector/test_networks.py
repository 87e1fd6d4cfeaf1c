import pytest
import torch
import torchvision

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.backbone import average_cells
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.backbones.frozen_norm import FrozenNormConv2d, bake_frozen_norms
from pipeline.detector.backbones.padding import PaddedConv2d
from pipeline.detector.network import FastRCNN, build_network
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import build_random_network

ROIS = torch.tensor([[0, 4.0, 5.0, 60.0, 70.0], [0, 30.0, 30.0, 90.0, 64.0]])


@pytest.mark.parametrize("widths", [None, (16, 8)])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_its_shapes_and_frozen_stages(name, widths):
    with torch.device("meta"):  # shapes alone, without memory or time
        network = FastRCNN(Architecture(("a", "b"), name, fc_widths=widths))
        images = torch.zeros(1, 3, 96, 128)
        features = network.extract_features(images)
        logits, deltas = network(images, ROIS)
    assert features.shape[1] == network.backbone.channels
    for cells, pixels in zip(features.shape[2:], (96, 128), strict=True):
        assert abs(cells - pixels / network.backbone.stride) <= 1
    assert logits.shape == (2, 3)
    assert deltas.shape == (2, 12)
    stages = list(network.backbone.get_stages())
    until = BACKBONES[name].freeze_until
    frozen = stages[: stages.index(until) + 1] if until != "none" else []
    for stage, modules in network.backbone.get_stages().items():
        flags = {p.requires_grad for module in modules for p in module.parameters()}
        assert flags == {stage not in frozen}
    staged = sum(
        p.numel()
        for ms in network.backbone.get_stages().values()
        for m in ms
        for p in m.parameters()
    )
    assert staged == sum(p.numel() for p in network.backbone.parameters())


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0", "resnet18"])
def test_gradients_reach_all_stages_except_the_frozen_ones(name):
    network = build_network(Architecture(("a", "b"), name))
    logits, deltas = network(torch.randn(1, 3, 64, 96), ROIS)
    (logits.sum() + deltas.sum()).backward()
    for parameter in network.parameters():
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
def test_default_heads_have_their_shapes(name, width, weights):
    with torch.device("meta"):
        network = FastRCNN(Architecture(("a", "b"), name))
        logits, deltas = network(torch.zeros(1, 3, 64, 64), ROIS)
    assert network.backbone.width == width
    assert (logits.shape, deltas.shape) == ((2, 3), (2, 12))
    for layer, shape in weights.items():
        assert tuple(network.backbone.get_submodule(layer).weight.shape) == shape


def test_convolutions_of_s_and_m_are_the_papers():
    with torch.device("meta"):
        s, m = (FastRCNN(Architecture(("a",), n)).backbone for n in ("caffenet", "vgg_cnn_m_1024"))
    channels = {
        n: [getattr(b, f"conv{i}").out_channels for i in range(1, 6)]
        for n, b in (("s", s), ("m", m))
    }
    assert channels == {"s": [96, 256, 384, 384, 256], "m": [96, 256, 512, 512, 512]}
    assert [getattr(s, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]


def test_response_normalisation_equals_torch():
    from pipeline.detector.backbones.caffe import _normalise_responses

    features = torch.randn(2, 7, 3, 4) * 20
    expected = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(features)
    torch.testing.assert_close(_normalise_responses(features, 5e-4, 2.0), expected)


def test_response_normalisation_of_large_values_is_right_in_half_precision():
    from pipeline.detector.backbones.caffe import _normalise_responses

    features = torch.full((1, 8, 2, 2), 300.0)
    normalised = _normalise_responses(features.half(), 1e-4, 1.0)
    assert normalised.dtype == torch.float16
    torch.testing.assert_close(
        normalised.float(), _normalise_responses(features, 1e-4, 1.0), rtol=1e-3, atol=0
    )


def test_a_seed_fixes_the_initial_weights():
    first, again, other = (build_network(Architecture(("a",), "tiny"), seed) for seed in (0, 0, 1))
    assert first.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert first.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.2)
    assert not first.cls_score.bias.any()
    assert not first.bbox_pred.bias.any()
    assert torch.equal(first.cls_score.weight, again.cls_score.weight)
    assert not torch.equal(first.cls_score.weight, other.cls_score.weight)


def test_building_a_network_keeps_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    build_network(Architecture(("a",), "tiny"))
    assert torch.equal(torch.rand(1), expected)


def test_freeze_until_names_the_last_frozen_stage():
    def list_trained(until):
        network = build_network(Architecture(("a",), "resnet18", freeze_until=until))
        return {n.split(".")[0] for n, p in network.backbone.named_parameters() if p.requires_grad}

    assert list_trained("none") == {"conv1", "layer1", "layer2", "layer3", "layer4"}
    assert list_trained("layer2") == {"layer3", "layer4"}
    assert list_trained(None) == {"layer2", "layer3", "layer4"}
    with pytest.raises(InvalidConfiguration, match=r"layer9.*conv1, layer1"):
        list_trained("layer9")


def randomise_norms(module):
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight, layer.running_var):
                tensor.data.uniform_(0.5, 2)
            for tensor in (layer.bias, layer.running_mean):
                tensor.data.normal_()
    return module.eval()


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_expanded", "resnet18"])
def test_folded_and_baked_norms_equal_torchvisions_network(name):
    torch.manual_seed(0)
    network = getattr(torchvision.models, name.removesuffix("_expanded"))
    reference = randomise_norms(network(num_classes=2))
    padding = "symmetric" if name.startswith("mobilenet") else None
    backbone = build_network(Architecture(("a",), name, padding=padding)).backbone
    source = reference.state_dict()
    names = backbone.get_pretrained_names()
    backbone.load_state_dict({own: source[names.get(own, own)] for own in backbone.state_dict()})
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
        source = getattr(torchvision.models, name)().state_dict()
    names = backbone.get_pretrained_names()
    for own, tensor in backbone.state_dict().items():
        assert source[names.get(own, own)].shape == tensor.shape


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("height", "width", "pads"),
    [(8, 8, (0, 1, 0, 1)), (9, 9, (1, 1, 1, 1)), (8, 9, (1, 1, 0, 1)), (9, 8, (0, 1, 1, 1))],
)
def test_same_padding_equals_explicit_padding(height, width, pads, groups):
    plain = torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False, groups=groups)
    layer = FrozenNormConv2d(plain, torch.nn.BatchNorm2d(4, eps=0.0), same_padding=True)
    images = torch.randn(1, 2, height, width, requires_grad=True)
    padded = torch.nn.functional.pad(images, pads)
    expected = torch.nn.functional.conv2d(padded, plain.weight, stride=2, groups=groups)
    assert expected.shape[2:] == (-(-height // 2), -(-width // 2))
    output = layer(images)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), (images, plain.weight))
    gradients = torch.autograd.grad((output * weights).sum(), (images, layer.weight))
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_1x1_convolution_equals_torch(threads, dtype):
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
def test_average_cells_averages_each_channel(training):
    cells = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(1, 3, 2, 4)
    cells = cells.to(memory_format=torch.channels_last)
    assert average_cells(cells, training).tolist() == [[3.5, 11.5, 19.5]]


def test_a_network_fits_a_few_rois():
    torch.manual_seed(0)
    network = build_network(Architecture(("a", "b"), "tiny")).train()
    images = torch.randn(1, 3, 64, 64)
    boxes = torch.tensor([[0, 0, 0, 30, 30], [0, 30, 0, 60, 30], [0, 20, 30, 60, 60.0]])
    labels = torch.tensor([0, 1, 2])
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images, boxes)[0], labels)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.05
    assert build_random_network().training is False
