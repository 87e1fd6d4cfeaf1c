"""Resumable states: the pointer is put last, a failing store loses nothing."""

import pytest
import torch

from pipeline import storage
from pipeline.detector.checkpoint import save_checkpoint
from pipeline.errors import InvalidCheckpoint, StorageError
from pipeline.training import state
from tests.detector.networks import SMALL, build_random_network


def save(output, step):
    state.save_state(output, step, {"model": {"w": torch.full((2,), float(step))}})


def test_a_saved_state_can_be_loaded(tmp_path):
    output = str(tmp_path)
    assert state.read_latest_state(output) is None
    save(output, 5)
    assert state.read_latest_state(output) == state.LatestState(5, is_finished=False)
    assert state.load_state(output, 5)["model"]["w"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize("damage", [None, "model.json", "model.safetensors", "truncated"])
def test_a_training_is_finished_only_if_its_network_is_there(tmp_path, damage):
    output = str(tmp_path)
    save(output, 5)
    save_checkpoint(output, build_random_network(), SMALL)
    state.set_latest_state(output, 5, is_finished=True)
    if damage == "truncated":
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4])
    elif damage is not None:
        (tmp_path / damage).unlink()
    assert state.read_latest_state(output) == state.LatestState(5, is_finished=damage is None)


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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"step": "x"}',
        b'{"step": 5}',
        b'{"step": 1e400, "finished": false}',
        b'{"step": -1, "finished": false}',
        b'{"step": true, "finished": false}',
        b'{"step": 5, "finished": "no"}',
        b'{"step": 5, "finished": 1}',
    ],
)
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


def test_states_of_another_run_are_left_out_and_never_loaded(tmp_path):
    """A late writer of a training that was overwritten meanwhile."""
    output = str(tmp_path)
    state.save_state(output, 5, {"w": 1}, "old")
    assert state.read_latest_state(output, "old").step == 5
    assert state.read_latest_state(output, "new") is None
    with pytest.raises(InvalidCheckpoint, match=r"state-000000005\.pt is of another training"):
        state.load_state(output, 5, "new")
    state.save_state(output, 2, {"w": 2}, "new")
    assert state.read_latest_state(output, "new") == state.LatestState(2, is_finished=False)
    assert state.load_state(output, 2, "new")["w"] == 2


def test_states_of_earlier_releases_name_no_run_and_count(tmp_path):
    output = str(tmp_path)
    save(output, 5)
    storage.put(f"{output}/steps/latest.json", b'{"step": 5, "finished": false}')
    assert state.read_latest_state(output, "run").step == 5
    assert state.load_state(output, 5, "run")["step"] == 5


def test_the_pointer_never_goes_back_to_a_slower_driver_of_the_same_run(tmp_path):
    """The faster driver removes the slower one's states; a pointer to one of them would be a dead end."""
    output = str(tmp_path)
    for step in (10, 20, 30):
        state.save_state(output, step, {}, "run")
    state.save_state(output, 10, {}, "run")
    assert state.read_latest_state(output, "run").step == 30
    names = ["latest.json", "state-000000020.pt", "state-000000030.pt"]
    assert storage.list_names(f"{output}/steps") == names


def test_files_of_the_user_beside_the_states_stay(tmp_path):
    for name in ("state-000000001-mine.pt", "state-0.pt", "state-best.pt"):
        storage.put(str(tmp_path / "steps" / name), b"mine")
    for step in (3, 4, 5):
        save(str(tmp_path), step)
    assert len(storage.list_names(str(tmp_path / "steps"))) == 3 + 3


def test_states_work_on_any_store():
    save("memory://training/out", 3)
    assert state.read_latest_state("memory://training/out").step == 3
    assert state.load_state("memory://training/out", 3)["step"] == 3


def test_a_state_of_another_step_is_named(tmp_path):
    output = str(tmp_path)
    state.save_state(output, 5, {"w": 1})
    state.save_state(output, 9, {"w": 2})
    copied = (tmp_path / "steps" / "state-000000005.pt").read_bytes()
    storage.put(str(tmp_path / "steps" / "state-000000009.pt"), copied)
    with pytest.raises(InvalidCheckpoint, match=r"state-000000009\.pt holds step 5"):
        state.load_state(output, 9)
