"""The end of a run: patient with its store, and clear about how to go on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from pipeline import shards
from pipeline.errors import NoCapacity, PipelineError, ShardFailed, StorageError
from pipeline.run_record import RunRecord
from pipeline.runs import summary
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, TakenOver
from pipeline.runs.summary import summarise

HINT = "to go on with what is committed: the same command without --overwrite"


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOutput:
    """An output of no shards, which is complete."""
    monkeypatch.setattr(summary, "WAITS", (0.0, 0.0))
    record = RunRecord("test", {})
    record.write(str(tmp_path))
    shards.write_table(str(tmp_path), [])
    return RunOutput(str(tmp_path), record, (), frozenset())


def _trouble(monkeypatch: pytest.MonkeyPatch, times: int) -> MagicMock:
    """The store fails so many times to tell what failed."""
    answers = [*[StorageError("s3://b/out: SlowDown")] * times, Counter({"read: Gone": 1})]
    count = MagicMock(side_effect=answers)
    monkeypatch.setattr(RunOutput, "failed_before", count)
    return count


def test_trouble_that_passes_ends_no_run(
    ready: RunOutput,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _trouble(monkeypatch, 2)
    with summarise(ready, RunOptions(max_failed_fraction=1)) as told:
        told.images = 4
    assert told.failed == {"read: Gone": 1}
    assert (tmp_path / "summary.json").is_file()
    assert caplog.messages == ["to end the run: s3://b/out: SlowDown"] * 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_trouble_that_stays_says_that_all_is_committed_and_how_to_go_on(
    ready: RunOutput, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = _trouble(monkeypatch, 9)
    command = "the same command without --overwrite" if overwrite else "the same command"
    with (
        pytest.raises(ShardFailed, match=f"SlowDown; every image is committed, {command} writes"),
        summarise(ready, RunOptions(overwrite=overwrite)),
    ):
        pass
    assert count.call_count == 3


@pytest.mark.parametrize(
    ("error", "overwrite", "hints"),
    [
        (NoCapacity("no core"), True, [HINT]),
        (NoCapacity("no core"), False, []),
        (TakenOver("another run began here"), True, []),  # it is for that one to end
    ],
)
def test_what_was_overwritten_is_not_to_be_erased_by_a_rerun(
    error: PipelineError,
    overwrite: bool,
    hints: list[str],
    ready: RunOutput,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(type(error)), summarise(ready, RunOptions(overwrite=overwrite)):
        raise error
    assert caplog.messages == hints
