import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from pipeline.detector.network import Architecture, build
from pipeline.detector.weights import load_pretrained
from pipeline.errors import InvalidCheckpoint, StorageError


@pytest.fixture(scope="module")
def pretrained():
    """A state dict as torchvision's, with random weights."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10).state_dict()


def model(**fields):
    return build(Architecture(("a", "b"), "resnet18", **fields))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_fills_the_backbone_by_name(tmp_path, pretrained, ending):
    place = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(pretrained, place)
    else:
        safetensors.torch.save_file(pretrained, place)
    network = model()
    found = load_pretrained(network, str(place))
    assert found.missing == ()
    assert found.unused == ("fc.bias", "fc.weight")
    assert set(found.loaded) == set(network.backbone.state_dict())
    own = network.backbone.state_dict()
    assert torch.equal(own["layer3.0.conv1.weight"], pretrained["layer3.0.conv1.weight"])
    assert torch.equal(own["layer3.0.conv1.norm.bias"], pretrained["layer3.0.bn1.bias"])


def test_a_new_head_is_reported_missing(tmp_path, pretrained):
    torch.save(pretrained, tmp_path / "w.pth")
    found = load_pretrained(model(fc_widths=(8, 8)), str(tmp_path / "w.pth"))
    assert found.missing == ("fc.1.weight", "fc.1.bias", "fc.4.weight", "fc.4.bias")
    assert "layer4.0.conv1.weight" in found.unused
    taken, random, without_place = found.lines()
    assert taken.startswith(f"{len(found.loaded)} tensors")
    assert random == (
        "4 are not among them and start random: fc.1.weight, fc.1.bias, fc.4.weight, fc.4.bias"
    )
    assert without_place.startswith(f"{len(found.unused)} of the weights have no place: fc.bias, ")


def test_half_precision_weights(tmp_path, pretrained):
    torch.save({name: t.half() for name, t in pretrained.items()}, tmp_path / "w.pth")
    network = model()
    load_pretrained(network, str(tmp_path / "w.pth"))
    assert network.backbone.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "named"),
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
def test_mismatches_are_named(tmp_path, pretrained, change, named):
    torch.save(change(dict(pretrained)), tmp_path / "w.pth")
    with pytest.raises(InvalidCheckpoint, match=named):
        load_pretrained(model(), str(tmp_path / "w.pth"))


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil-was-here",))


def test_code_in_a_pickle_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Evil()}, "w.pth")
    with pytest.raises(InvalidCheckpoint, match="not a state dict"):
        load_pretrained(model(), "w.pth")
    assert not Path("evil-was-here").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02", b"PK\x03\x04broken"])
def test_no_state_dict(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=name):
        load_pretrained(model(), str(tmp_path / name))


def test_missing_file_and_unknown_torchvision_name(tmp_path):
    with pytest.raises(StorageError, match=r"nowhere\.pth"):
        load_pretrained(model(), str(tmp_path / "nowhere.pth"))
    with pytest.raises(InvalidCheckpoint, match=r"no weights 'ResNet18_Weights\.NONE'"):
        load_pretrained(model(), "ResNet18_Weights.NONE")


def test_real_mobilenet_weights(dev_data):
    place = dev_data.parent / "weights" / "mobilenet_v2_imagenet1001.pth"
    if not place.exists():
        pytest.skip(f"no weights at {place}")
    found = load_pretrained(build(Architecture(("a",), "mobilenet_v2")), str(place))
    assert found.missing == ()
    assert found.unused == ("classifier.1.bias", "classifier.1.weight")
