"""What a driver notices in its output: another run, or another driver's parts after a standstill."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import shards, storage
from pipeline.engine.shards.output_watch import STANDSTILL, WATCH_EVERY, OutputWatch
from pipeline.errors import StorageError
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.resume import TakenOver


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _open(folder: Path, setting: str = "own", **options: bool) -> RunOutput:
    uri = str(folder / "manifest.parquet")
    write_manifest(uri, (ManifestRow(f"p{i}", f"/{i}", 1, 1, None) for i in range(4)), None)
    run_options = RunOptions(shard_size=2, **options)
    output = str(folder / "output")
    cut = plan_cut(open_manifest(uri), output, run_options)
    record = RunRecord("test", {"dataset": cut.dataset, "setting": setting})
    return open_run(output, record, cut, run_options)


def _wait(watch: OutputWatch, clock: Clock, seconds: float) -> None:
    """Call the watch as a driver does that never stands still."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.5
        assert watch.check() == frozenset()


def test_a_driver_whose_output_is_overwritten_stops(tmp_path: Path) -> None:
    clock = Clock()
    watch = OutputWatch(_open(tmp_path), clock)
    _wait(watch, clock, 2 * WATCH_EVERY)
    _open(tmp_path, "other", overwrite=True)
    with pytest.raises(TakenOver, match="is not of this run"):
        _wait(watch, clock, 2 * WATCH_EVERY)


def test_after_a_standstill_the_other_drivers_parts_are_noticed_once(tmp_path: Path) -> None:
    clock = Clock()
    ready = _open(tmp_path)
    watch = OutputWatch(ready, clock)
    shards.put_part(ready.uri, ready.shards[1], pa.table({"status": ["ok", "ok"]}))
    _wait(watch, clock, 2 * WATCH_EVERY)
    clock.now += STANDSTILL + 1
    assert watch.check() == {1}
    _wait(watch, clock, 2 * WATCH_EVERY)


def test_a_driver_that_was_overwritten_while_it_stood_still_stops_at_once(tmp_path: Path) -> None:
    clock = Clock()
    watch = OutputWatch(_open(tmp_path), clock)
    _open(tmp_path, "other", overwrite=True)
    clock.now += STANDSTILL + 1
    with pytest.raises(TakenOver):
        watch.check()


def test_a_store_that_fails_delays_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    ready = _open(tmp_path)
    watch = OutputWatch(ready, clock)
    shards.put_part(ready.uri, ready.shards[0], pa.table({"status": ["ok", "ok"]}))

    def fail(*arguments: object) -> None:
        raise StorageError("the store does not answer")

    clock.now += STANDSTILL + 1
    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", fail)
        assert watch.check() == frozenset()
    clock.now += 0.5
    assert watch.check() == {0}
