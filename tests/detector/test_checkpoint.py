import json

import pytest
import safetensors.torch
import torch

from pipeline import storage
from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint import load_checkpoint, save_checkpoint
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration, StorageError
from tests.detector.networks import CLASSES, SMALL, build_random_network


@pytest.fixture
def checkpoint_folder(tmp_path):
    save_checkpoint(
        str(tmp_path), build_random_network(), SMALL, extra={"recipe": "tiny", "step": 7}
    )
    return tmp_path


@pytest.mark.parametrize("store", ["disk", "memory"])
@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2"])
def test_a_loaded_network_equals_the_saved_one(tmp_path, backbone, store):
    uri = str(tmp_path) if store == "disk" else f"memory://checkpoints/{backbone}"
    network = build_random_network(backbone)
    record = save_checkpoint(uri, network, SMALL, extra={"step": 7})
    loaded = load_checkpoint(uri)
    assert loaded.classes == CLASSES
    assert loaded.preprocessing == SMALL
    assert loaded.extra == {"step": 7}
    assert loaded.digest == record.digest == read_checkpoint_record(uri).digest
    assert not loaded.network.training
    images, rois = torch.randn(1, 3, 64, 96), torch.tensor([[0, 3.0, 4.0, 50.0, 60.0]])
    with torch.no_grad():
        for output, expected in zip(
            loaded.network(images, rois), network(images, rois), strict=True
        ):
            torch.testing.assert_close(output, expected, rtol=0, atol=0)
    trained = {n: p.requires_grad for n, p in network.named_parameters()}
    assert {n: p.requires_grad for n, p in loaded.network.named_parameters()} == trained


def test_the_digest_changes_with_everything_that_changes_the_output(tmp_path):
    first = save_checkpoint(str(tmp_path), build_random_network(seed=0), SMALL, extra={"step": 1})
    again = save_checkpoint(str(tmp_path), build_random_network(seed=0), SMALL, extra={"step": 2})
    other = save_checkpoint(str(tmp_path), build_random_network(seed=1), SMALL)
    assert first.digest == again.digest != other.digest


def test_half_precision_and_channels_last_are_saved_as_fp32(tmp_path):
    network = build_random_network().to(torch.bfloat16).to(memory_format=torch.channels_last)
    save_checkpoint(str(tmp_path), network, SMALL)
    for name, tensor in load_checkpoint(str(tmp_path)).network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name].float())


def damage_file(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def edit_record(folder, change):
    path = folder / "model.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def swap_weights(folder, tensors):
    """Put other weights, with a record of their digest."""
    import hashlib

    weights = safetensors.torch.save(tensors)
    (folder / "model.safetensors").write_bytes(weights)
    weights_record = {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}
    edit_record(folder, lambda record: record["weights"].update(weights_record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "model.json does not exist"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors does not exist"),
        (lambda f: damage_file(f, "model.json", lambda d: d[:50]), "model.json"),
        (lambda f: damage_file(f, "model.json", lambda d: b"[]"), "model.json"),
        (lambda f: edit_record(f, lambda r: r.update(version=99)), "version 99"),
        (lambda f: edit_record(f, lambda r: r.pop("preprocessing")), "preprocessing"),
        (lambda f: edit_record(f, lambda r: r["architecture"].update(depth=3)), "depth"),
        (
            lambda f: edit_record(f, lambda r: r["architecture"].update(backbone="x")),
            "backbone 'x'",
        ),
        (lambda f: damage_file(f, "model.safetensors", lambda d: d[:-100]), "truncated"),
        (lambda f: damage_file(f, "model.safetensors", lambda d: d[:-1] + b"\1"), "SHA-256"),
        (
            lambda f: edit_record(
                f, lambda r: (r["architecture"].update(classes=["a"]), r.update(classes=["a"]))
            ),
            r"has bbox_pred\.\w+ as \(16",
        ),
        (lambda f: swap_weights(f, {"odd": torch.zeros(2)}), "lacks backbone"),
    ],
)
def test_an_error_names_the_damage_and_the_folder(checkpoint_folder, damage, message):
    damage(checkpoint_folder)
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load_checkpoint(str(checkpoint_folder))
    assert str(checkpoint_folder) in str(caught.value)


def change_weights(folder, change):
    tensors = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    swap_weights(folder, change(tensors))


def set_value(name, value, index=0):
    def change(tensors):
        tensors[name].view(-1)[index] = value
        return tensors

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_value("cls_score.weight", float("nan")),
            "cls_score.weight has values that are not finite",
        ),
        (set_value("bbox_pred.bias", float("inf"), -1), "bbox_pred.bias has values that are not"),
        (
            lambda t: {name: tensor.half() for name, tensor in t.items()},
            "as float16, expected float32",
        ),
        (
            lambda t: t | {"cls_score.bias": t["cls_score.bias"].double()},
            "cls_score.bias as float64",
        ),
        (lambda t: t | {"cls_score.bias": t["cls_score.bias"].long()}, "cls_score.bias as int64"),
        (lambda t: t | {"cls_score.bias": t["cls_score.bias"].bfloat16()}, "as bfloat16"),
    ],
)
def test_weights_that_are_not_finite_float32_are_rejected_by_name(
    checkpoint_folder, change, message
):
    change_weights(checkpoint_folder, change)
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load_checkpoint(str(checkpoint_folder))
    assert str(checkpoint_folder / "model.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("weights", {"bytes": 1e400}, "weights.bytes is Infinity, expected an integer"),
        ("weights", {"bytes": "12"}, "weights.bytes"),
        ("weights", {"sha256": None}, "weights.sha256 is null, expected a text"),
        ("architecture", {"fc_widths": []}, "fc_widths is .*expected two integers"),
        ("architecture", {"fc_widths": [8.5, 8]}, "fc_widths is .*expected two integers"),
        ("architecture", {"fc_widths": "88"}, "architecture.fc_widths"),
        ("architecture", {"fc_ranks": [0, 8]}, "ranks"),
        ("architecture", {"roi_size": 2**31}, "2147483648 cells per side"),
        ("architecture", {"roi_size": "7"}, "roi_size"),
        ("architecture", {"freeze_until": ["a"]}, "freeze_until"),
        ("architecture", {"freeze_until": "nowhere"}, "describes no network: no stage 'nowhere'"),
        ("architecture", {"classes": [1, 2, 3]}, "classes is .*expected a list of texts"),
        ("architecture", {"classes": "abc"}, "classes"),
        ("architecture", {"backbone": ["tiny"]}, "backbone"),
        ("preprocessing", {"mean": [10**400, 0, 0]}, "mean"),
        ("preprocessing", {"mean": [1e39, 0, 0]}, "not finite"),
        ("preprocessing", {"std": [float("nan")] * 3}, "std"),
        ("preprocessing", {"std": [1e-46, 1, 1]}, "not finite"),
        ("preprocessing", {"scale": float("nan")}, "scale is NaN, expected a finite number"),
        ("preprocessing", {"scale": "1"}, "scale"),
        ("preprocessing", {"short_side": float("inf"), "max_side": float("inf")}, "side"),
        ("preprocessing", {"max_side": 10**9}, "cap 1000000000"),
        ("preprocessing", {"channel_order": "GBR"}, "channel order"),
    ],
)
def test_values_of_the_wrong_kind_in_a_record_are_named(checkpoint_folder, part, fields, message):
    edit_record(checkpoint_folder, lambda record: record[part].update(fields))
    with pytest.raises(InvalidCheckpoint, match=message) as caught:
        load_checkpoint(str(checkpoint_folder))
    assert str(checkpoint_folder / "model.json") in str(caught.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"version": true}', b"\xff\xfe{}", b"null"])
def test_bytes_that_are_no_record_are_named(checkpoint_folder, content):
    (checkpoint_folder / "model.json").write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"model\.json"):
        read_checkpoint_record(str(checkpoint_folder))


def test_a_missing_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(InvalidCheckpoint, match="no checkpoint"):
        read_checkpoint_record(str(tmp_path / "nowhere"))


def test_a_failing_store_does_not_make_an_invalid_checkpoint(checkpoint_folder, monkeypatch):
    def fail(uri):
        raise StorageError("down")

    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(StorageError, match="down"):
        load_checkpoint(str(checkpoint_folder))


def test_loading_detects_weights_and_record_of_different_saves(checkpoint_folder, monkeypatch):
    put = storage.put

    def put_all_but_the_record(uri, data):
        if uri.endswith(".json"):
            raise StorageError("full")
        put(uri, data)

    monkeypatch.setattr(storage, "put", put_all_but_the_record)
    with pytest.raises(StorageError):
        save_checkpoint(str(checkpoint_folder), build_random_network(seed=5), SMALL)
    with pytest.raises(InvalidCheckpoint, match="SHA-256"):
        load_checkpoint(str(checkpoint_folder))


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
def test_invalid_architectures_are_rejected(fields):
    with pytest.raises(InvalidConfiguration):
        Architecture(**fields)


def test_an_architecture_survives_a_round_trip_through_json():
    architecture = Architecture(("a", "b"), "mobilenet_v2", roi_size=5, fc_widths=(64, 32))
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture


def test_a_record_that_states_other_classes_twice_is_named(checkpoint_folder):
    path = checkpoint_folder / "model.json"
    record = json.loads(path.read_bytes())
    record["classes"] = list(reversed(record["classes"]))
    path.write_text(json.dumps(record))
    with pytest.raises(InvalidCheckpoint, match="contradicts itself: its classes are"):
        read_checkpoint_record(str(checkpoint_folder))
