import json

import pytest
import safetensors.torch
import torch

from pipeline import storage
from pipeline.detector import checkpoint
from pipeline.detector.checkpoint_record import peek
from pipeline.detector.network import Architecture
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration, StorageError
from tests.detector.networks import CLASSES, SMALL, random_model


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(str(tmp_path), random_model(), SMALL, extra={"recipe": "tiny", "step": 7})
    return tmp_path


@pytest.mark.parametrize("place", ["disk", "memory"])
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2"])
def test_round_trip(tmp_path, backbone, place):
    uri = str(tmp_path) if place == "disk" else f"memory://checkpoints/{backbone}"
    model = random_model(backbone)
    record = checkpoint.save(uri, model, SMALL, extra={"step": 7})
    loaded = checkpoint.load(uri)
    assert loaded.classes == CLASSES
    assert loaded.preprocessing == SMALL
    assert loaded.extra == {"step": 7}
    assert loaded.digest == record.digest == peek(uri).digest
    assert not loaded.model.training
    images, rois = torch.randn(1, 3, 64, 96), torch.tensor([[0, 3.0, 4.0, 50.0, 60.0]])
    with torch.no_grad():
        for found, expected in zip(loaded.model(images, rois), model(images, rois), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    trained = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: p.requires_grad for n, p in loaded.model.named_parameters()} == trained


def test_digest_follows_what_changes_the_output(tmp_path):
    first = checkpoint.save(str(tmp_path), random_model(seed=0), SMALL, extra={"step": 1})
    again = checkpoint.save(str(tmp_path), random_model(seed=0), SMALL, extra={"step": 2})
    other = checkpoint.save(str(tmp_path), random_model(seed=1), SMALL)
    assert first.digest == again.digest != other.digest


def test_half_precision_and_channels_last_are_saved_as_fp32(tmp_path):
    model = random_model().to(torch.bfloat16).to(memory_format=torch.channels_last)
    checkpoint.save(str(tmp_path), model, SMALL)
    for name, tensor in checkpoint.load(str(tmp_path)).model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].float())


def damaged(folder, name, change):
    place = folder / name
    place.write_bytes(change(place.read_bytes()))


def rewritten(folder, change):
    place = folder / "model.json"
    record = json.loads(place.read_text())
    change(record)
    place.write_text(json.dumps(record))


def swap_weights(folder, tensors):
    """Other weights with a record whose digest is right."""
    import hashlib

    data = safetensors.torch.save(tensors)
    (folder / "model.safetensors").write_bytes(data)
    told = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    rewritten(folder, lambda record: record["weights"].update(told))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "model.json").unlink(), "model.json does not exist"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors does not exist"),
        (lambda f: damaged(f, "model.json", lambda d: d[:50]), "model.json"),
        (lambda f: damaged(f, "model.json", lambda d: b"[]"), "model.json"),
        (lambda f: rewritten(f, lambda r: r.update(version=99)), "version 99"),
        (lambda f: rewritten(f, lambda r: r.pop("preprocessing")), "preprocessing"),
        (lambda f: rewritten(f, lambda r: r["architecture"].update(depth=3)), "depth"),
        (lambda f: rewritten(f, lambda r: r["architecture"].update(backbone="x")), "backbone 'x'"),
        (lambda f: damaged(f, "model.safetensors", lambda d: d[:-100]), "truncated"),
        (lambda f: damaged(f, "model.safetensors", lambda d: d[:-1] + b"\1"), "SHA-256"),
        (
            lambda f: rewritten(f, lambda r: r["architecture"].update(classes=["a"])),
            r"has bbox_pred\.\w+ as \(16",
        ),
        (lambda f: swap_weights(f, {"odd": torch.zeros(2)}), "lacks backbone"),
    ],
)
def test_damage_is_named(saved, damage, named):
    damage(saved)
    with pytest.raises(InvalidCheckpoint, match=named) as caught:
        checkpoint.load(str(saved))
    assert str(saved) in str(caught.value)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(InvalidCheckpoint, match="no checkpoint"):
        peek(str(tmp_path / "nowhere"))


def test_a_store_that_fails_is_not_a_bad_checkpoint(saved, monkeypatch):
    def broken(uri):
        raise StorageError("down")

    monkeypatch.setattr(storage, "read", broken)
    with pytest.raises(StorageError, match="down"):
        checkpoint.load(str(saved))


def test_a_failed_put_leaves_weights_and_record_apart_only_detectably(saved, monkeypatch):
    put = storage.put

    def fails_at_the_record(uri, data):
        if uri.endswith(".json"):
            raise StorageError("full")
        put(uri, data)

    monkeypatch.setattr(storage, "put", fails_at_the_record)
    with pytest.raises(StorageError):
        checkpoint.save(str(saved), random_model(seed=5), SMALL)
    with pytest.raises(InvalidCheckpoint, match="SHA-256"):
        checkpoint.load(str(saved))


@pytest.mark.parametrize(
    "fields",
    [
        {"classes": ()},
        {"classes": ("a", "a")},
        {"classes": ("a",), "backbone": "resnet1"},
        {"classes": ("a",), "backbone": "tiny", "padding": "same"},
        {"classes": ("a",), "fc_widths": (0, 3)},
        {"classes": ("a",), "roi_size": 0},
    ],
)
def test_senseless_architectures_are_refused(fields):
    with pytest.raises(InvalidConfiguration):
        Architecture(**fields)


def test_architecture_json_round_trip():
    architecture = Architecture(("a", "b"), "mobilenet_v2", roi_size=5, fc_widths=(64, 32))
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
