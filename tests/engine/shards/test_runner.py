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
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.runner import ATTEMPTS, ShardRunner
from pipeline.engine.shards.work import Flight
from pipeline.engine.watchdog import time_limit
from pipeline.errors import MismatchedProposals, NoCapacity, ShardFailed, StorageError
from pipeline.runs.report import Failure, Report
from pipeline.shards import Shard, put_part

pytestmark = pytest.mark.usefixtures("ray_cluster")


@dataclass(frozen=True)
class Faults:
    """Which images misbehave, by their number over all shards."""

    folder: str
    crashing: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    unreachable_store: int = 0
    """How many attempts at the image 0 end with a StorageError."""
    forbidden: tuple[int, ...] = ()
    """The store has trouble with these, whenever it is asked; on the last chance they are failed rows."""
    gone_from: int = 10**9
    """The store is gone for images from this number on."""
    wrong_input: bool = False


@ray.remote(max_retries=0)
def _count_images(faults: Faults, piece: Piece, last_chance: bool) -> Report:
    rows = range(piece.shard.rows) if piece.row is None else [piece.row]
    numbers = [piece.shard.first_row + row for row in rows]
    for number in numbers:
        with (Path(faults.folder) / f"tried-{number}").open("a") as file:
            file.write("x")
        with time_limit(1.0):
            if not (last_chance and piece.whole and number in faults.forbidden):
                _misbehave(faults, number)
    report = Report(images=len(numbers))
    status = ["failed" if number in faults.forbidden else "ok" for number in numbers]
    table = pa.table({"number": numbers, "status": status})
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
        task = _count_images.options(resources=resources)
        return task.remote(self.faults, flight.piece, flight.last_chance)

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
            assert row["number"] not in rows, "an image twice"
            rows[row["number"]] = row["status"]
    return rows


def test_all_images_once(tmp_path: Path) -> None:
    report = _run(Faults(str(tmp_path)))
    assert report.images == 12
    assert not report.failed
    assert _rows(tmp_path) == dict.fromkeys(range(12), "ok")


def test_only_the_images_that_end_their_worker_alone_are_failed(tmp_path: Path) -> None:
    faults = Faults(str(tmp_path), crashing=(5,), hanging=(10,))
    report = _run(faults)
    expected = dict.fromkeys(range(12), "ok") | {5: "failed", 10: "failed"}
    assert _rows(tmp_path) == expected
    assert report.images == 12
    assert dict(report.failed) == {"count: WorkerDied": 2}
    # Twice with its shard, twice alone; the shard without a bad image was done once.
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
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.01)
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

    def proceed(self, flight: Flight) -> None:
        return None

    def lost(self, flight: Flight, error: Exception) -> bool:
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        return pa.table({"number": [piece.row], "status": [failure.error_type]})


def _bookkeeping(folder: Path, rows: int = 1) -> ShardRunner:
    shard = Shard(0, "0" * 24, 0, rows)
    return ShardRunner(_NoCluster(), str(folder), [shard], RunProgress("count", rows, 0))  # type: ignore[arg-type]


def _losses_of_a_image(runner: ShardRunner, error: Exception) -> int:
    """How often an image on its own may meet the error before it is failed."""
    piece = runner._queue.take()
    runner._isolate(piece.shard, range(1))
    for count in range(1, 99):
        alone = runner._queue.take()
        runner._after_error(Flight(alone, "propose"), error)
        if not runner._queue:
            return count
    raise AssertionError("never")


def test_a_node_that_is_gone_says_nothing_about_a_image(tmp_path: Path) -> None:
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
    assert _losses_of_a_image(_bookkeeping(tmp_path / "a"), crash) == 2
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.0)
    memory = ray.exceptions.OutOfMemoryError("low on memory")
    assert _losses_of_a_image(_bookkeeping(tmp_path / "b"), memory) == 4
    (part,) = (tmp_path / "b").glob("part-*")
    assert pq.read_table(part)["status"].to_pylist() == ["OutOfMemory"]


def test_a_part_of_single_images_outlasts_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.01)
    calls = []

    def put(output: str, shard: Shard, table: pa.Table) -> int:
        calls.append(shard)
        if len(calls) < 3:
            raise StorageError("the store does not answer")
        return put_part(output, shard, table)

    monkeypatch.setattr("pipeline.engine.shards.isolation.put_part", put)
    faults = Faults(str(tmp_path), crashing=(1,))
    report = _run(faults, shards=1)
    assert len(calls) == 3
    assert report.images == 4
    (part,) = tmp_path.glob("part-*")
    assert report.counts["bytes"] == part.stat().st_size
    assert _rows(tmp_path) == dict.fromkeys(range(4), "ok") | {1: "failed"}


def test_what_stops_a_shard_to_the_last_fails_its_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.0)
    report = _run(Faults(str(tmp_path), forbidden=(1, 2)), shards=3)
    expected = dict.fromkeys(range(12), "ok") | {1: "failed", 2: "failed"}
    assert _rows(tmp_path) == expected
    assert report.images == 12
    assert _tries(Faults(str(tmp_path)), 1) == ATTEMPTS


def _alone(runner: ShardRunner, rows: int) -> list[Flight]:
    """The images of the runner's one shard, each on its own."""
    piece = runner._queue.take()
    runner._isolate(piece.shard, range(rows))
    return [Flight(runner._queue.take(), "read") for _ in range(rows)]


def test_one_shard_of_single_images_is_given_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its images cannot be had while none comes through: the store is away."""
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.0)
    runner = _bookkeeping(tmp_path, rows=5)
    flights = _alone(runner, 5)
    for _ in range(ATTEMPTS):
        for flight in flights:
            runner._after_error(flight, StorageError("no answer"))
    assert len(runner._failed) == runner._given_up_in_a_row == 1
    assert not runner._queue


def test_a_single_image_that_its_store_never_gives_is_failed_where_others_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.0)
    runner = _bookkeeping(tmp_path, rows=2)
    bad, good = _alone(runner, 2)
    for _ in range(ATTEMPTS - 1):
        runner._after_error(bad, StorageError("no answer"))
    good.began = time.monotonic()
    monkeypatch.setattr(
        ray, "get", lambda _: Report(images=1, table=pa.table({"number": [1], "status": ["ok"]}))
    )
    runner._flights = {"reference": good}  # type: ignore[dict-item]
    runner._settle("reference")  # type: ignore[arg-type]
    runner._after_error(bad, StorageError("no answer"))
    assert not runner._failed
    assert dict(runner.total.failed) == {"read: StorageError": 1}
    (part,) = tmp_path.glob("part-*")
    assert pq.read_table(part)["status"].to_pylist() == ["StorageError", "ok"]


def test_a_store_that_stays_away_ends_the_run_though_some_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a wait a shard is tried again before fresh ones, whatever the machine's speed.
    monkeypatch.setattr("pipeline.engine.shards.runner.RETRY_SECONDS", 0.0)
    faults = Faults(str(tmp_path), gone_from=20)
    with pytest.raises(ShardFailed, match=r"3 shards failed one after the other: .* not answer"):
        _run(faults, shards=30)
    committed = _rows(tmp_path)
    assert committed
    assert committed.keys() <= set(range(20))
    assert not (tmp_path / "tried-100").exists(), "all were tried though none could be done"
