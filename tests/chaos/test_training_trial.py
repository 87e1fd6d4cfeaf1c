"""What the log of a training shows about a rerun: whether it went on from the state that was there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pipeline import storage, uris
from pipeline.training import logs, state
from pipeline.training.logs import TrainingRecord
from tests.chaos.raylets import Raylets
from tests.chaos.stage import Inputs, Stage
from tests.chaos.training_trial import STEPS, TrainingTrial, count_redone_steps
from tests.training.training_records import make_record


def _put_log(output: str, records: list[TrainingRecord]) -> None:
    lines = "".join(json.dumps(record.as_json()) + "\n" for record in records)
    storage.put(uris.join(output, logs.FOLDER, logs.LINES), lines.encode())


@pytest.fixture
def trial(tmp_path: Path) -> TrainingTrial:
    """A trial that is not started, with an empty output."""
    inputs = Inputs("manifest", "checkpoint", str(tmp_path))
    return TrainingTrial(Stage(tmp_path, cast(Raylets, None), [], inputs), "fault")


def test_a_training_that_resumed_keeps_the_records_of_its_state() -> None:
    before = [make_record(step) for step in (10, 20, 30, 40)]
    resumed = [*before, make_record(50), make_record(60)]
    assert count_redone_steps(before, resumed) == 0
    assert count_redone_steps([], resumed) == 0


def test_steps_behind_the_first_record_that_was_written_again_are_redone() -> None:
    before = [make_record(step) for step in (10, 20, 30, 40)]
    from_start = [replace(record, seconds=0.6) for record in before]
    assert count_redone_steps(before, from_start) == 40
    assert count_redone_steps(before, [*before[:2], *from_start[2:]]) == 20
    assert count_redone_steps(before, before[:3]) == 10
    assert count_redone_steps(before, []) == 40


def test_records_behind_the_state_are_not_remembered(trial: TrainingTrial) -> None:
    records = [make_record(step, seconds=step / 7) for step in (10, 20, 30, 40)]
    _put_log(trial.output, records)
    state.set_latest_state(trial.output, 20, is_finished=False)
    trial.remember_state()
    assert trial.records == records[:2]


@pytest.mark.parametrize("step", [None, STEPS])
def test_a_fault_before_the_first_state_or_after_the_last_did_not_strike(
    step: int | None, trial: TrainingTrial
) -> None:
    _put_log(trial.output, [make_record(10)])
    if step is not None:
        state.set_latest_state(trial.output, step, is_finished=False)
    with pytest.raises(AssertionError, match="the fault struck at"):
        trial.remember_state()
