"""Shards done in this process: patience with a store, what an interrupt leaves, another run in the output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import shards
from pipeline.engine.monitor.stages import StageLoad
from pipeline.engine.shards import output_watch
from pipeline.engine.shards.sequential import run_shards_here
from pipeline.errors import MissingObject, ShardFailed, StorageError
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.backoff import ATTEMPTS, Backoff
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.report import Report
from pipeline.runs.resume import TakenOver
from pipeline.runs.summary import RunInterrupted
from pipeline.shards import Shard

STAGE = StageLoad("count", "counting", 1, 1, 0)
NO_WAITS = Backoff(first=0.0)


def _open(folder: Path, setting: str = "own", **options: bool) -> RunOutput:
    """An output of three shards of two images."""
    uri = str(folder / "manifest.parquet")
    write_manifest(uri, (ManifestRow(f"p{i}", f"/{i}", 1, 1, None) for i in range(6)), None)
    run_options = RunOptions(shard_size=2, **options)
    output = str(folder / "output")
    cut = plan_cut(open_manifest(uri), output, run_options)
    record = RunRecord("test", {"dataset": cut.dataset, "setting": setting})
    return open_run(output, record, cut, run_options)


class CountingWork:
    """Notes its calls; the shard of ordinal 1 fails as often as it is asked to."""

    def __init__(self, failure: Callable[[], BaseException], failures: int) -> None:
        self.failure = failure
        self.failures = failures
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, shard: Shard, is_last_chance: bool) -> Report:
        self.calls.append((shard.ordinal, is_last_chance))
        if shard.ordinal == 1 and self.failures:
            self.failures -= 1
            raise self.failure()
        return Report(images=shard.rows)

    def run(self, ready: RunOutput) -> int:
        """The number of images that the run did."""
        return run_shards_here(self, "test", STAGE, ready, NO_WAITS).report.images


def _lose_store() -> StorageError:
    return StorageError("the store is away")


def test_a_store_that_comes_back_costs_attempts_at_one_shard(tmp_path: Path) -> None:
    work = CountingWork(_lose_store, failures=2)
    assert work.run(_open(tmp_path)) == 6
    assert work.calls == [(0, False), (1, False), (1, False), (1, False), (2, False)]


def test_a_store_that_stays_away_ends_the_run_after_the_last_chance(tmp_path: Path) -> None:
    work = CountingWork(_lose_store, failures=ATTEMPTS)
    with pytest.raises(ShardFailed, match="shard 1 could not be done: the store is away"):
        work.run(_open(tmp_path))
    assert work.calls == [(0, False), *[(1, False)] * (ATTEMPTS - 1), (1, True)]


def test_what_no_retry_can_help_ends_the_run_at_once(tmp_path: Path) -> None:
    work = CountingWork(lambda: MissingObject("the manifest is gone"), failures=1)
    with pytest.raises(MissingObject):
        work.run(_open(tmp_path))
    assert work.calls == [(0, False), (1, False)]


def test_an_interrupt_says_how_much_was_committed(tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted) as interrupt:
        CountingWork(KeyboardInterrupt, failures=1).run(_open(tmp_path))
    assert interrupt.value.images == 2


def test_a_run_whose_output_is_overwritten_stops_before_the_next_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_watch, "WATCH_EVERY", 0.0)
    ready = _open(tmp_path)

    def overwrite(shard: Shard, _: bool) -> Report:
        assert shard.ordinal == 0, "it goes on in an output that is not its own"
        _open(tmp_path, "other", overwrite=True)
        return Report(images=shard.rows)

    with pytest.raises(TakenOver):
        run_shards_here(overwrite, "test", STAGE, ready)
    assert not shards.list_parts(ready.uri, ready.shards).committed
