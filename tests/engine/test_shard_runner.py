"""The runner's promises, tried with tasks that fail, crash and hang on purpose."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline import storage
from pipeline.engine.cluster import Capacity
from pipeline.engine.progress import RunProgress
from pipeline.engine.shard_runner import ATTEMPTS, ShardRunner
from pipeline.engine.shard_work import Flight
from pipeline.engine.stages import FlowState, StageLoad
from pipeline.engine.work import Failure, Piece, Report, time_limit
from pipeline.errors import MismatchedProposals, NoCapacity, ShardFailed, StorageError
from pipeline.shards import Shard, put_part

pytestmark = pytest.mark.usefixtures("ray_cluster")


@dataclass(frozen=True)
class Faults:
    """Which pictures misbehave, by their number over all shards."""

    folder: str
    crashing: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    unreachable_store: int = 0
    """How many attempts at the picture 0 end with a StorageError."""
    forbidden: tuple[int, ...] = ()
    """The store has trouble with these, whenever it is asked."""
    gone_from: int = 10**9
    """The store is gone for pictures from this number on."""
    wrong_input: bool = False


@ray.remote(max_retries=0)
def _count_pictures(faults: Faults, piece: Piece) -> Report:
    rows = range(piece.shard.rows) if piece.row is None else [piece.row]
    numbers = [piece.shard.first_row + row for row in rows]
    for number in numbers:
        with (Path(faults.folder) / f"tried-{number}").open("a") as file:
            file.write("x")
        with time_limit(1.0):
            _misbehave(faults, number)
    report = Report(images=len(numbers))
    table = pa.table({"number": numbers, "status": ["ok"] * len(numbers)})
    if piece.whole:
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
    if number == 0 and _tries(faults, 0) <= faults.unreachable_store:
        raise StorageError("the store does not answer")


def _tries(faults: Faults, number: int) -> int:
    path = Path(faults.folder) / f"tried-{number}"
    return len(path.read_text()) if path.exists() else 0


class CountingWork:
    """Work of one stage, as the proposals' is."""

    def __init__(self, faults: Faults, need: dict[str, float] | None = None) -> None:
        self.faults = faults
        self.need = need or {"CPU": 1.0}

    def follow(self, capacity: Capacity) -> None:
        pass

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        return len(flights) < 2 * capacity.cpus

    def flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        return FlowState([StageLoad("count", "counting", capacity.cpus, len(flights), 0)])

    def needs(self) -> Sequence[dict[str, float]]:
        return [self.need]

    def start(self, flight: Flight) -> Any:
        flight.stage = "count"
        resources = {name: amount for name, amount in self.need.items() if name != "CPU"}
        return _count_pictures.options(resources=resources).remote(self.faults, flight.piece)

    def proceed(self, flight: Flight) -> None:
        return None

    def lost(self, flight: Flight, error: Exception) -> bool:
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        return pa.table({"number": [piece.shard.first_row + piece.row], "status": ["failed"]})


def _run(faults: Faults, shards: int = 3, need: dict[str, float] | None = None) -> Report:
    cut = [Shard(i, f"{i:024x}", 4 * i, 4) for i in range(shards)]
    with RunProgress("count", 4 * shards, 0) as progress:
        runner = ShardRunner(
            CountingWork(faults, need), faults.folder, cut, progress, no_capacity_after=1.0
        )
        return runner.run()


def _rows(folder: Path) -> dict[int, str]:
    rows: dict[int, str] = {}
    for path in folder.glob("part-*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["number"] not in rows, "a picture twice"
            rows[row["number"]] = row["status"]
    return rows


def test_all_pictures_once(tmp_path: Path) -> None:
    report = _run(Faults(str(tmp_path)))
    assert report.images == 12
    assert not report.failed
    assert _rows(tmp_path) == dict.fromkeys(range(12), "ok")


def test_only_the_pictures_that_end_their_worker_alone_are_failed(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), crashing=(5,), hanging=(10,))
    report = _run(faults)
    expected = dict.fromkeys(range(12), "ok") | {5: "failed", 10: "failed"}
    assert _rows(tmp_path) == expected
    assert report.images == 12
    assert dict(report.failed) == {"count: WorkerDied": 2}
    # Twice with its shard, twice alone; the shard without a bad picture was done once.
    assert _tries(faults, 5) == 4
    assert _tries(faults, 0) == 1


def test_a_store_that_recovers_costs_nothing(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), unreachable_store=1)
    assert _run(faults).images == 12
    assert _rows(tmp_path) == dict.fromkeys(range(12), "ok")
    assert _tries(faults, 0) == 2


def test_a_shard_that_cannot_be_done_fails_the_run_and_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.shard_runner.RETRY_SECONDS", 0.01)
    faults = Faults(str(tmp_path), unreachable_store=99)
    with pytest.raises(ShardFailed, match=r"1 shards .* the store does not answer"):
        _run(faults)
    assert _rows(tmp_path) == dict.fromkeys(range(4, 12), "ok")
    assert _tries(faults, 0) == ATTEMPTS


def test_wrong_input_is_not_retried(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), wrong_input=True)
    with pytest.raises(MismatchedProposals, match="row 0"):
        _run(faults, shards=1)
    assert _tries(faults, 0) == 1


def test_no_node_that_fits_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        NoCapacity, match=r"lacked unobtainium 1 \(of 1 living nodes none has more than 0\)"
    ):
        _run(Faults(str(tmp_path)), shards=1, need={"unobtainium": 1.0})


class _NoCluster:
    """Stands for the work where only the runner's bookkeeping is looked at."""

    def lost(self, flight: Flight, error: Exception) -> bool:
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        return pa.table({"number": [piece.row], "status": [failure.error_type]})


def _bookkeeping(folder: Path, rows: int = 1) -> ShardRunner:
    shard = Shard(0, "0" * 24, 0, rows)
    return ShardRunner(_NoCluster(), str(folder), [shard], RunProgress("count", rows, 0))  # type: ignore[arg-type]


def _losses_of_a_picture(runner: ShardRunner, error: Exception) -> int:
    """How often a picture on its own may meet the error before it is failed."""
    piece = runner._queue.take()
    runner._isolate(piece.shard, range(1))
    for count in range(1, 99):
        alone = runner._queue.take()
        runner._after_error(Flight(alone, "propose"), error)
        if not runner._queue:
            return count
    raise AssertionError("never")


def test_a_node_that_is_gone_says_nothing_about_a_picture(tmp_path: Path) -> None:
    silent = ray.exceptions.ActorUnavailableError("socket closed", None)
    runner = _bookkeeping(tmp_path)
    piece = runner._queue.take()
    for error in (silent, ray.exceptions.NodeDiedError("the node is gone"), silent):
        runner._after_error(Flight(piece, "detect"), error)
        assert runner._queue.take() == piece
    assert not runner._losses


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.NodeDiedError("the node is gone"),
        ray.exceptions.WorkerCrashedError(),
        ray.exceptions.ActorDiedError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_part_whose_report_was_lost_with_its_worker_is_not_done_again(
    tmp_path: Path, error: Exception
) -> None:
    runner = _bookkeeping(tmp_path, rows=3)
    piece = runner._queue.take()
    box = [[0.0, 0.0, 1.0, 1.0]]
    rows = {
        "status": ["ok", "failed", "ok"],
        "error_type": [None, "UnreadableImage", None],
        "boxes": [box, None, box * 2],
    }
    put_part(str(tmp_path), piece.shard, pa.table(rows))
    runner._after_error(Flight(piece, "propose"), error)
    assert not runner._queue
    assert not runner._losses
    assert runner.total.images == 3
    assert dict(runner.total.failed) == {"propose: UnreadableImage": 1}
    assert runner.total.counts["proposals"] == 3
    assert runner.total.counts["bytes"] == storage.size(f"{tmp_path}/{piece.shard.part_name}")


def test_a_damaged_part_of_a_lost_worker_is_done_again(tmp_path: Path) -> None:
    runner = _bookkeeping(tmp_path)
    piece = runner._queue.take()
    (tmp_path / piece.shard.part_name).write_bytes(b"rubbish")
    runner._after_error(Flight(piece, "propose"), ray.exceptions.NodeDiedError("gone"))
    assert runner._queue.take() == piece
    assert runner.total.images == 0


def test_a_worker_that_was_ended_for_its_nodes_memory_is_tried_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = ray.exceptions.WorkerCrashedError()
    assert _losses_of_a_picture(_bookkeeping(tmp_path / "a"), crash) == 2
    monkeypatch.setattr("pipeline.engine.shard_runner.RETRY_SECONDS", 0.0)
    memory = ray.exceptions.OutOfMemoryError("low on memory")
    assert _losses_of_a_picture(_bookkeeping(tmp_path / "b"), memory) == 4
    (part,) = (tmp_path / "b").glob("part-*")
    assert pq.read_table(part)["status"].to_pylist() == ["OutOfMemory"]


def test_a_part_of_single_pictures_outlasts_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.shard_runner.RETRY_SECONDS", 0.01)
    calls = []

    def put(output: str, shard: Shard, table: pa.Table) -> int:
        calls.append(shard)
        if len(calls) < 3:
            raise StorageError("the store does not answer")
        return put_part(output, shard, table)

    monkeypatch.setattr("pipeline.engine.isolation.put_part", put)
    faults = Faults(str(tmp_path), crashing=(1,))
    report = _run(faults, shards=1)
    assert len(calls) == 3
    assert report.images == 4
    assert _rows(tmp_path) == dict.fromkeys(range(4), "ok") | {1: "failed"}


def test_one_shard_of_single_pictures_is_given_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its pictures cannot be had: the other shards are done."""
    monkeypatch.setattr("pipeline.engine.shard_runner.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.engine.shard_runner.GIVEN_UP_IN_A_ROW", 2)
    faults = Faults(str(tmp_path), crashing=(0,), forbidden=(1, 2, 3))
    with pytest.raises(ShardFailed, match=r"1 shards could not be done, the first is 0 "):
        _run(faults, shards=8)
    assert _rows(tmp_path) == dict.fromkeys(range(4, 32), "ok")


def test_a_store_that_stays_away_ends_the_run_though_some_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a wait a shard is tried again before fresh ones, whatever the machine's speed.
    monkeypatch.setattr("pipeline.engine.shard_runner.RETRY_SECONDS", 0.0)
    faults = Faults(str(tmp_path), gone_from=20)
    with pytest.raises(ShardFailed, match=r"3 shards failed one after the other: .* not answer"):
        _run(faults, shards=30)
    committed = _rows(tmp_path)
    assert committed
    assert committed.keys() <= set(range(20))
    assert not (tmp_path / "tried-100").exists(), "all were tried though none could be done"
