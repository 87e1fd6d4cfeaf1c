"""Clearing a training removes what training writes, by name, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.sources.listing import list_files
from pipeline.training import state
from pipeline.training.training_files import (
    clear_training,
    list_training_files,
    remove_scratch_files,
)

OWN = (
    "steps/latest.json",
    "steps/state-000000250.pt",
    "steps/state-1234567890.pt",
    "steps/totals.json",
    "model.json",
    "model.safetensors",
    "logs/train.jsonl",
    "logs/events.out.tfevents.0.train",
    "logs/not-finite-step-7-worker-0.npz",
    "logs/driver-0001-01234567.log",
    "logs/errors-0001-01234567.jsonl",
    "logs/progress-0001-01234567.jsonl",
    "best/model.json",
    "best/model.safetensors",
)
USERS = (
    "notes.txt",
    "run.json",
    "steps/howto.md",
    "steps/state-best.pt",
    "steps/deeper/latest.json",
    "logs/app.log",
    "logs/driver.log",
    "logs/events.out.tfevents.1700000000.host",
    "logs/train.jsonl.bak",
    "best/model.onnx",
    "best/run/model.json",
    "proposals/part-000000-000000000000000000000000.parquet",
    "model.safetensors.index.json",
)


@pytest.mark.parametrize("store", ["disk", "memory"])
def test_only_what_training_writes_is_removed(tmp_path: Path, store: str) -> None:
    output = str(tmp_path) if store == "disk" else f"memory://{tmp_path.name}/out"
    for name in (*OWN, *USERS):
        storage.put(f"{output}/{name}", b"")
    listed = list_training_files(output)
    assert sorted(listed) == sorted(OWN)
    assert listed[0] == "steps/latest.json", "no run may resume from half of a training"
    clear_training(output)
    assert list_files(output, hidden=True).files == tuple(sorted(USERS))
    assert list_training_files(output) == []


def test_an_output_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert list_training_files(str(tmp_path / "new")) == []
    clear_training(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_all_that_a_state_puts_is_listed(tmp_path: Path) -> None:
    state.save_state(str(tmp_path), 3, {})
    assert list_training_files(str(tmp_path)) == list(list_files(str(tmp_path), hidden=True).files)


def test_scratch_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    digits = "0123456789abcdef" * 2
    for name in ("steps/.state-000000250.pt", "best/.model.safetensors", ".model.json"):
        storage.put(f"{tmp_path}/{name}.{digits}.partial", b"half")
    storage.put(f"{tmp_path}/logs/.mine.{digits}.partial", b"mine")
    remove_scratch_files(str(tmp_path))
    assert list_files(str(tmp_path), hidden=True).files == (f"logs/.mine.{digits}.partial",)
