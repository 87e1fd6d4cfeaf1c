"""Resumable states: the pointer is put last, a failing store loses nothing."""

import pytest
import torch

from pipeline import storage
from pipeline.errors import InvalidCheckpoint, StorageError
from pipeline.training import state


def save(output, step):
    state.save_state(output, step, {"model": {"w": torch.full((2,), float(step))}})


def test_a_saved_state_can_be_loaded(tmp_path):
    output = str(tmp_path)
    assert state.read_latest_state(output) is None
    save(output, 5)
    assert state.read_latest_state(output) == state.LatestState(5, is_finished=False)
    assert state.load_state(output, 5)["model"]["w"].tolist() == [5.0, 5.0]
    state.set_latest_state(output, 5, is_finished=True)
    assert state.read_latest_state(output).is_finished


def test_older_states_are_removed(tmp_path):
    for step in (1, 2, 3, 10):
        save(str(tmp_path), step)
    names = storage.list_names(str(tmp_path / "steps"))
    assert names == ["latest.json", "state-000000003.pt", "state-000000010.pt"]


@pytest.mark.parametrize("failing", ["state-000000002.pt", "latest.json"])
def test_a_store_that_fails_leaves_the_previous_state(tmp_path, monkeypatch, failing):
    output = str(tmp_path)
    save(output, 1)
    put = storage.put

    def broken(uri, data):
        if uri.endswith(failing):
            raise StorageError(f"{uri} cannot be written: no space left")
        put(uri, data)

    monkeypatch.setattr(storage, "put", broken)
    with pytest.raises(StorageError):
        save(output, 2)
    assert state.read_latest_state(output).step == 1
    assert state.load_state(output, 1)["step"] == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"step": "x"}'])
def test_a_damaged_pointer_is_named(tmp_path, content):
    storage.put(str(tmp_path / "steps" / "latest.json"), content)
    with pytest.raises(InvalidCheckpoint, match=r"latest\.json is damaged"):
        state.read_latest_state(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 cut off"])
def test_a_damaged_state_is_named(tmp_path, content):
    save(str(tmp_path), 1)
    storage.put(str(tmp_path / "steps" / "state-000000001.pt"), content)
    with pytest.raises(InvalidCheckpoint, match=r"state-000000001\.pt is damaged"):
        state.load_state(str(tmp_path), 1)


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(InvalidCheckpoint, match=r"state-000000007\.pt is missing"):
        state.load_state(str(tmp_path), 7)


def test_clearing_a_training_leaves_other_files(tmp_path):
    save(str(tmp_path), 1)
    for name in ("model.json", "logs/train.jsonl", "notes.txt"):
        storage.put(str(tmp_path / name), b"")
    state.clear_training(str(tmp_path))
    assert storage.list_below(str(tmp_path)) == ["notes.txt"]


def test_states_work_on_any_store():
    save("memory://training/out", 3)
    assert state.read_latest_state("memory://training/out").step == 3
    assert state.load_state("memory://training/out", 3)["step"] == 3
