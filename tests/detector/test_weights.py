import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.detector.weights import load_pretrained
from pipeline.errors import InvalidCheckpoint, StorageError


@pytest.fixture(scope="module")
def resnet_weights():
    """A state dict like torchvision's, with random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


def build_resnet(**fields):
    return build_network(Architecture(("a", "b"), "resnet18", **fields))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_fill_the_backbone_by_name(tmp_path, resnet_weights, ending):
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(resnet_weights, path)
    else:
        safetensors.torch.save_file(resnet_weights, path)
    network = build_resnet()
    loaded_weights = load_pretrained(network, str(path))
    assert loaded_weights.missing == ()
    assert loaded_weights.unused == ("fc.bias", "fc.weight")
    assert set(loaded_weights.loaded) == set(network.backbone.state_dict())
    own = network.backbone.state_dict()
    assert torch.equal(own["layer3.0.conv1.weight"], resnet_weights["layer3.0.conv1.weight"])
    assert torch.equal(own["layer3.0.conv1.norm.bias"], resnet_weights["layer3.0.bn1.bias"])


def test_a_new_head_is_reported_missing(tmp_path, resnet_weights):
    torch.save(resnet_weights, tmp_path / "w.pth")
    loaded_weights = load_pretrained(build_resnet(fc_widths=(8, 8)), str(tmp_path / "w.pth"))
    assert loaded_weights.missing == ("fc.1.weight", "fc.1.bias", "fc.4.weight", "fc.4.bias")
    assert "layer4.0.conv1.weight" in loaded_weights.unused
    loaded, random, unused = loaded_weights.describe()
    assert loaded.startswith(f"{len(loaded_weights.loaded)} tensors")
    assert random == (
        "4 are not in the weights and start random: fc.1.weight, fc.1.bias, fc.4.weight, fc.4.bias"
    )
    assert unused.startswith(
        f"{len(loaded_weights.unused)} tensors of the weights are unused: fc.bias, "
    )


@pytest.mark.parametrize(
    ("classes", "padding", "is_doubtful"),
    [(1000, None, True), (1001, None, False), (1000, "symmetric", False)],
)
def test_a_file_of_torchvision_is_doubted_where_tensorflows_is_expected(
    tmp_path, classes, padding, is_doubtful
):
    torch.save(
        torchvision.models.mobilenet_v2(num_classes=classes).state_dict(), tmp_path / "w.pth"
    )
    network = build_network(Architecture(("a",), "mobilenet_v2", padding=padding))
    last = load_pretrained(network, str(tmp_path / "w.pth")).describe()[-1]
    need = "torchvision's need --preprocessing torchvision --padding symmetric"
    assert last.endswith(need) == is_doubtful


def test_half_precision_weights_become_fp32(tmp_path, resnet_weights):
    torch.save({name: t.half() for name, t in resnet_weights.items()}, tmp_path / "w.pth")
    network = build_resnet()
    load_pretrained(network, str(tmp_path / "w.pth"))
    assert network.backbone.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"classifier.weight": torch.zeros(1)}, "holds nothing for resnet18"),
        (
            lambda w: w | {"layer2.0.conv1.weight": torch.zeros(3, 3)},
            r"layer2.0.conv1.weight is \(3, 3\), expected \(128, 64, 3, 3\)",
        ),
        (
            lambda w: {k: v for k, v in w.items() if k != "conv1.weight"},
            "lacks conv1.weight.*frozen",
        ),
        (lambda w: {"state_dict": w}, "not a mapping of names to tensors"),
        (lambda w: list(w.values()), "not a mapping of names to tensors"),
    ],
)
def test_an_error_names_the_mismatch(tmp_path, resnet_weights, change, message):
    torch.save(change(dict(resnet_weights)), tmp_path / "w.pth")
    with pytest.raises(InvalidCheckpoint, match=message):
        load_pretrained(build_resnet(), str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.to_sparse(), "conv1.weight is sparse"),
        (lambda t: torch.empty_like(t, device="meta"), "conv1.weight has no values"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "conv1.weight is quantised"),
        (lambda t: torch.full_like(t, float("nan")), "conv1.weight has values that are not finite"),
        (lambda t: t.double() * 1e300, "conv1.weight has values that are not finite"),
        (lambda t: t.to(torch.int8), "conv1.weight is int8, expected floating numbers"),
        (lambda t: t.to(torch.complex64), "conv1.weight is complex64"),
    ],
)
def test_tensors_that_cannot_be_weights_are_named(tmp_path, resnet_weights, change, message):
    weights = dict(resnet_weights)
    weights["conv1.weight"] = change(weights["conv1.weight"])
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(InvalidCheckpoint, match=message):
        load_pretrained(build_resnet(), str(tmp_path / "w.pth"))


def test_an_unused_tensor_may_be_of_any_kind(tmp_path, resnet_weights):
    counter = {"fc.weight": resnet_weights["fc.weight"].to(torch.int8)}
    torch.save(resnet_weights | counter, tmp_path / "w.pth")
    assert load_pretrained(build_resnet(), str(tmp_path / "w.pth")).missing == ()


class CreateFolder:
    def __reduce__(self):
        return (os.mkdir, ("created-by-pickle",))


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": CreateFolder()}, "w.pth")
    with pytest.raises(InvalidCheckpoint, match="not a state dict"):
        load_pretrained(build_resnet(), "w.pth")
    assert not Path("created-by-pickle").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02", b"PK\x03\x04broken"])
def test_a_file_that_is_no_state_dict_is_rejected(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=name):
        load_pretrained(build_resnet(), str(tmp_path / name))


def test_a_missing_file_and_an_unknown_torchvision_name_are_rejected(tmp_path):
    with pytest.raises(StorageError, match=r"nowhere\.pth"):
        load_pretrained(build_resnet(), str(tmp_path / "nowhere.pth"))
    with pytest.raises(InvalidCheckpoint, match=r"no weights 'ResNet18_Weights\.NONE'"):
        load_pretrained(build_resnet(), "ResNet18_Weights.NONE")


def test_real_mobilenet_weights_fill_the_backbone(dev_data):
    path = dev_data.parent / "weights" / "mobilenet_v2_imagenet1001.pth"
    if not path.exists():
        pytest.skip(f"no weights at {path}")
    loaded_weights = load_pretrained(build_network(Architecture(("a",), "mobilenet_v2")), str(path))
    assert loaded_weights.missing == ()
    assert loaded_weights.unused == ("classifier.1.bias", "classifier.1.weight")
