"""The runner's promises, tried with tasks that fail, crash and hang on purpose."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from pipeline import storage
from pipeline.engine.capacity import Capacity
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.retry_policy import RetryPolicy
from pipeline.engine.shards.runner import ShardRunner
from pipeline.engine.shards.work import Flight
from pipeline.engine.watchdog import time_limit
from pipeline.errors import MismatchedProposals, NoCapacity, ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, Backoff
from pipeline.runs.placement import Need
from pipeline.runs.report import Failure, Report
from pipeline.shards import Shard, put_part

pytestmark = pytest.mark.usefixtures("ray_cluster")

SHORT_WAITS = Backoff(first=0.01, longest=0.05)
NO_WAITS = Backoff(first=0.0)
NO_ANSWER = StorageError("the store does not answer")


@dataclass(frozen=True)
class Faults:
    """Which images misbehave, by their number over all shards."""

    folder: str
    crashing: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    unreachable_store: int = 0
    """Attempts at image 0 that end with a StorageError."""
    forbidden: tuple[int, ...] = ()
    """The store fails for these at every attempt; on the last chance they become failed rows."""
    gone_from: int = 10**9
    """The store is gone for images from this number on."""
    wrong_input: bool = False


@ray.remote(max_retries=0)
def _count_images(faults: Faults, piece: Piece, is_last_chance: bool) -> Report:
    rows = range(piece.shard.rows) if piece.row is None else [piece.row]
    numbers = [piece.shard.first_row + row for row in rows]
    for number in numbers:
        with (Path(faults.folder) / f"tried-{number}").open("a") as file:
            file.write("x")
        with time_limit(1.0):
            if not (is_last_chance and piece.is_whole and number in faults.forbidden):
                _misbehave(faults, number)
    report = Report(images=len(numbers))
    status = ["failed" if number in faults.forbidden else "ok" for number in numbers]
    table = pa.table({"number": numbers, "status": status})
    if piece.is_whole:
        put_part(faults.folder, piece.shard, table)
    else:
        report.table = table
    return report


def _misbehave(faults: Faults, number: int) -> None:
    if number in faults.crashing:
        os._exit(1)
    if number in faults.hanging:
        time.sleep(60)
    if faults.wrong_input:
        raise MismatchedProposals("row 0 is 'b' there and 'a' here")
    if number >= faults.gone_from or number in faults.forbidden:
        raise StorageError("the store does not answer")
    if number == 0 and _count_tries(faults, 0) <= faults.unreachable_store:
        raise StorageError("the store does not answer")


def _count_tries(faults: Faults, number: int) -> int:
    path = Path(faults.folder) / f"tried-{number}"
    return len(path.read_text()) if path.exists() else 0


class CountingWork:
    """Work of one stage, as that of proposals is."""

    def __init__(self, faults: Faults, need: dict[str, float] | None = None) -> None:
        self.faults = faults
        self.need = need or {"CPU": 1.0}

    def follow(self, capacity: Capacity, queued: int) -> None:
        pass

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        return len(flights) < 2 * capacity.cpus

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        return FlowState([StageLoad("count", "counting", capacity.cpus, len(flights), 0)])

    def list_needs(self) -> Sequence[Need]:
        return [Need(self.need)]

    def start(self, flight: Flight) -> Any:
        flight.stage = "count"
        resources = {name: amount for name, amount in self.need.items() if name != "CPU"}
        task = _count_images.options(resources=resources)
        return task.remote(self.faults, flight.piece, flight.is_last_chance)

    def start_next_stage(self, flight: Flight) -> None:
        return None

    def clean_up(self, flight: Flight, error: Exception) -> bool:
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        number = piece.shard.first_row + (piece.row or 0)
        return pa.table({"number": [number], "status": ["failed"]})


def _run(
    faults: Faults,
    shards: int = 3,
    need: dict[str, float] | None = None,
    backoff: Backoff = SHORT_WAITS,
    watch: Any = None,
) -> Report:
    planned = [Shard(i, f"{i:024x}", 4 * i, 4) for i in range(shards)]
    with RunProgress("count", 4 * shards, 0) as progress:
        runner = ShardRunner(
            CountingWork(faults, need),
            faults.folder,
            planned,
            progress,
            no_capacity_after=1.0,
            policy=RetryPolicy(backoff),
            watch=watch,
        )
        return runner.run()


def _read_rows(folder: Path) -> dict[int, str]:
    rows: dict[int, str] = {}
    for path in folder.glob("part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["number"] not in rows, "an image twice"
            rows[row["number"]] = row["status"]
    return rows


def test_every_image_is_done_once(tmp_path: Path) -> None:
    report = _run(Faults(str(tmp_path)))
    assert report.images == 12
    assert not report.failed
    assert _read_rows(tmp_path) == dict.fromkeys(range(12), "ok")


def test_shards_that_another_driver_committed_meanwhile_are_counted_and_not_redone(
    tmp_path: Path,
) -> None:
    class Watch:
        """After a standstill, another driver's part of the last shard is there; another one is damaged."""

        def check(self) -> frozenset[int]:
            return frozenset({10, 11})

    faults = Faults(str(tmp_path))
    table = pa.table({"number": range(44, 48), "status": ["ok"] * 3 + ["failed"]})
    table = table.append_column("error_type", pa.array([None] * 3 + ["UnreadableImage"]))
    put_part(str(tmp_path), Shard(11, f"{11:024x}", 44, 4), table)
    (tmp_path / Shard(10, f"{10:024x}", 40, 4).part_name).write_bytes(b"half a part")
    report = _run(faults, shards=12, watch=Watch())
    assert report.images == 48
    assert dict(report.failed) == {"propose: UnreadableImage": 1}
    assert _read_rows(tmp_path) == dict.fromkeys(range(48), "ok") | {47: "failed"}
    assert [_count_tries(faults, number) for number in (0, 40, 44, 47)] == [1, 1, 0, 0]


def test_only_images_that_end_their_worker_alone_are_failed(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), crashing=(5,), hanging=(10,))
    report = _run(faults)
    expected = dict.fromkeys(range(12), "ok") | {5: "failed", 10: "failed"}
    assert _read_rows(tmp_path) == expected
    assert report.images == 12
    assert dict(report.failed) == {"count: WorkerDied": 2}
    # Twice with its shard, twice alone; the shard without a bad image was done once.
    assert _count_tries(faults, 5) == 4
    assert _count_tries(faults, 0) == 1


def test_a_store_that_recovers_costs_nothing(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), unreachable_store=1)
    assert _run(faults).images == 12
    assert _read_rows(tmp_path) == dict.fromkeys(range(12), "ok")
    assert _count_tries(faults, 0) == 2


def test_a_shard_that_cannot_be_done_fails_the_run_and_keeps_the_rest(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), unreachable_store=99)
    with pytest.raises(ShardFailed, match=r"1 shards .* the store does not answer"):
        _run(faults)
    assert _read_rows(tmp_path) == dict.fromkeys(range(4, 12), "ok")
    assert _count_tries(faults, 0) == ATTEMPTS


def test_wrong_input_is_not_retried(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), wrong_input=True)
    with pytest.raises(MismatchedProposals, match="row 0"):
        _run(faults, shards=1)
    assert _count_tries(faults, 0) == 1


def test_a_need_that_no_node_fulfils_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        NoCapacity, match=r"lacked unobtainium 1 \(of 1 living node none has more than 0\)"
    ):
        _run(Faults(str(tmp_path)), shards=1, need={"unobtainium": 1.0})


def test_an_error_on_the_last_chance_fails_only_its_images(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), forbidden=(1, 2))
    report = _run(faults, backoff=NO_WAITS)
    expected = dict.fromkeys(range(12), "ok") | {1: "failed", 2: "failed"}
    assert _read_rows(tmp_path) == expected
    assert report.images == 12
    assert _count_tries(faults, 1) == ATTEMPTS


def test_a_store_that_stays_away_ends_the_run_though_some_shards_were_committed(
    tmp_path: Path,
) -> None:
    # Without waits a shard is retried before fresh ones start, whatever the machine's speed.
    faults = Faults(str(tmp_path), gone_from=20)
    with pytest.raises(ShardFailed, match=r"3 shards failed one after the other: .* not answer"):
        _run(faults, shards=30, backoff=NO_WAITS)
    committed = _read_rows(tmp_path)
    assert committed
    assert committed.keys() <= set(range(20))
    assert not (tmp_path / "tried-100").exists(), "all were tried though none could be done"


def test_a_part_of_single_images_outlasts_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def put(output: str, shard: Shard, table: pa.Table) -> int:
        calls.append(shard)
        if len(calls) < 3:
            raise NO_ANSWER
        return put_part(output, shard, table)

    monkeypatch.setattr("pipeline.engine.shards.isolation.put_part", put)
    report = _run(Faults(str(tmp_path), crashing=(1,)), shards=1)
    assert len(calls) == 3
    assert report.images == 4
    (part,) = tmp_path.glob("part-*")
    assert report.counts["bytes"] == part.stat().st_size
    assert _read_rows(tmp_path) == dict.fromkeys(range(4), "ok") | {1: "failed"}


Outcome = Callable[[Piece], Report]
"""What an attempt at a piece does: it returns a report, or raises."""


def _fail(error: Exception) -> Outcome:
    def attempt(piece: Piece) -> Report:
        raise error

    return attempt


class ScriptedWork:
    """Work without tasks: each attempt at a piece does the next entry of its script, then its last entry."""

    def __init__(
        self,
        whole: Sequence[Outcome] = (),
        *,
        by_row: Mapping[int, Sequence[Outcome]] | None = None,
        build_errors: int = 0,
    ) -> None:
        """Prepare it.

        Args:
            whole: the attempts at a whole shard.
            by_row: the attempts at each single image.
            build_errors: how often building a failed row fails.
        """
        self.whole = whole
        self.by_row = by_row or {}
        self.build_errors = build_errors
        self.attempts: list[int | None] = []
        """The row of each attempt, None for the whole shard."""
        self._errors: dict[Flight, Exception] = {}

    def follow(self, capacity: Capacity, queued: int) -> None:
        pass

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        return not flights

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        return FlowState([StageLoad("read", "reading", 1, len(flights), 0)])

    def list_needs(self) -> Sequence[Need]:
        return [Need({"CPU": 1.0})]

    def start(self, flight: Flight) -> Any:
        flight.stage = "read"
        row = flight.piece.row
        script = self.whole if row is None else self.by_row[row]
        outcome = script[min(self.attempts.count(row), len(script) - 1)]
        self.attempts.append(row)
        report = None
        try:
            report = outcome(flight.piece)
        except (RayError, StorageError) as error:
            self._errors[flight] = error
        return ray.put(report)

    def start_next_stage(self, flight: Flight) -> None:
        if flight in self._errors:
            raise self._errors.pop(flight)

    def clean_up(self, flight: Flight, error: Exception) -> bool:
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        if self.build_errors:
            self.build_errors -= 1
            raise NO_ANSWER
        return pa.table({"number": [piece.row], "status": [failure.error_type]})


def _run_script(
    work: ScriptedWork, folder: Path, rows: int = 1, *, isolated: bool = False
) -> Report:
    """Run a script over one shard, as a whole or, like --retry-failed, image by image."""
    shard = Shard(0, "0" * 24, 0, rows)
    with RunProgress("script", rows, 0) as progress:
        runner = ShardRunner(
            work,
            str(folder),
            [] if isolated else [shard],
            progress,
            retry={shard: range(rows)} if isolated else None,
            policy=RetryPolicy(SHORT_WAITS),
        )
        return runner.run()


def _commit_into(folder: Path) -> Outcome:
    def attempt(piece: Piece) -> Report:
        rows = range(piece.shard.rows) if piece.row is None else [piece.row]
        table = pa.table({"number": list(rows), "status": ["ok"] * len(rows)})
        report = Report(images=len(table))
        if piece.is_whole:
            put_part(str(folder), piece.shard, table)
        else:
            report.table = table
        return report

    return attempt


NODE_DIED = NodeDiedError("the node is gone")
CRASH = WorkerCrashedError()
ACTOR_DIED = ActorDiedError()
MEMORY = OutOfMemoryError("low on memory")


@pytest.mark.parametrize(
    "error", [NODE_DIED, CRASH, ACTOR_DIED], ids=lambda error: type(error).__name__
)
def test_a_part_whose_report_was_lost_with_its_worker_is_counted_and_not_redone(
    tmp_path: Path, error: Exception
) -> None:
    box = [[0.0, 0.0, 1.0, 1.0]]
    rows = {
        "status": ["ok", "failed", "ok"],
        "error_type": [None, "UnreadableImage", None],
        "boxes": [box, None, box * 2],
    }

    def commit_and_die(piece: Piece) -> Report:
        put_part(str(tmp_path), piece.shard, pa.table(rows))
        raise error

    work = ScriptedWork([commit_and_die])
    report = _run_script(work, tmp_path, rows=3)
    assert work.attempts == [None]
    assert report.images == 3
    assert dict(report.failed) == {"propose: UnreadableImage": 1}
    assert report.counts["proposals"] == 3
    (part,) = tmp_path.glob("part-*")
    assert report.counts["bytes"] == storage.get_size(str(part))


def test_a_damaged_part_of_a_lost_worker_is_redone(tmp_path: Path) -> None:
    def write_rubbish_and_die(piece: Piece) -> Report:
        (tmp_path / piece.shard.part_name).write_bytes(b"rubbish")
        raise NODE_DIED

    work = ScriptedWork([write_rubbish_and_die, _commit_into(tmp_path)])
    assert _run_script(work, tmp_path).images == 1
    assert work.attempts == [None, None]
    assert _read_rows(tmp_path) == {0: "ok"}


def test_a_node_that_is_gone_says_nothing_about_an_image(tmp_path: Path) -> None:
    silent = ActorUnavailableError("socket closed", None)
    lost = [_fail(error) for error in (silent, NODE_DIED, silent, NODE_DIED)]
    work = ScriptedWork([*lost, _commit_into(tmp_path)])
    assert _run_script(work, tmp_path).images == 1
    assert work.attempts == [None] * 5


@pytest.mark.parametrize(
    ("error", "kind", "times_alone"), [(CRASH, "WorkerDied", 2), (MEMORY, "OutOfMemory", 4)]
)
def test_a_worker_that_was_ended_for_its_nodes_memory_is_tried_more_often(
    tmp_path: Path, error: Exception, kind: str, times_alone: int
) -> None:
    work = ScriptedWork([_fail(error)], by_row={0: [_fail(error)]})
    report = _run_script(work, tmp_path)
    assert work.attempts == [None, None, *[0] * times_alone]
    assert dict(report.failed) == {f"read: {kind}": 1}
    assert _read_rows(tmp_path) == {0: kind}


def test_one_shard_of_single_images_is_given_up_once(tmp_path: Path) -> None:
    """However many of its images fail while none succeeds: the store is away."""
    work = ScriptedWork(by_row={row: [_fail(NO_ANSWER)] for row in range(5)})
    with pytest.raises(ShardFailed, match="1 shards could not be done"):
        _run_script(work, tmp_path, rows=5, isolated=True)
    assert max(work.attempts.count(row) for row in range(5)) == ATTEMPTS
    assert not list(tmp_path.glob("part-*"))


def test_a_single_image_that_its_store_never_gives_is_failed_if_others_succeed(
    tmp_path: Path,
) -> None:
    work = ScriptedWork(by_row={0: [_fail(NO_ANSWER)], 1: [_commit_into(tmp_path)]})
    report = _run_script(work, tmp_path, rows=2, isolated=True)
    assert dict(report.failed) == {"read: StorageError": 1}
    assert _read_rows(tmp_path) == {0: "StorageError", 1: "ok"}
    assert work.attempts.count(0) == ATTEMPTS


def test_a_failed_row_outlasts_a_manifest_that_is_away(tmp_path: Path) -> None:
    """The image is not redone: its workers would die again."""
    work = ScriptedWork([_fail(CRASH)], by_row={0: [_fail(CRASH)]}, build_errors=3)
    report = _run_script(work, tmp_path)
    assert work.attempts == [None, None, 0, 0]
    assert dict(report.failed) == {"read: WorkerDied": 1}
    assert _read_rows(tmp_path) == {0: "WorkerDied"}


def test_a_failed_row_that_can_never_be_built_gives_up_the_shard(tmp_path: Path) -> None:
    work = ScriptedWork([_fail(CRASH)], by_row={0: [_fail(CRASH)]}, build_errors=99)
    with pytest.raises(ShardFailed, match="1 shards could not be done"):
        _run_script(work, tmp_path)
