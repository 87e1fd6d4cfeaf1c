"""How the pool starts, replaces and chooses detectors, with a launcher that starts none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ray import exceptions as rx

from pipeline.engine.capacity import Capacity
from pipeline.engine.detect.actor_losses import (
    MAX_LOSSES_IN_A_ROW,
    MAX_SINGLE_LOSSES_IN_A_ROW,
)
from pipeline.engine.detect.pool import PLACE_SECONDS, DetectorPool
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.start_failures import AVOID_SECONDS
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.engine.shards.work import Flight
from pipeline.errors import InvalidCheckpoint, NoCapacity, ShardFailed
from pipeline.shards import Shard
from tests.engine.detect.fake_launcher import (
    Clock,
    FakeActor,
    FakeLauncher,
    StartResult,
    make_capacity,
    make_host,
    start_error,
)

START_SECONDS = 5.0


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _pool(
    launcher: FakeLauncher,
    clock: Clock,
    max_actors: int | None = None,
    precision: str = "auto",
) -> DetectorPool:
    resources = ActorResources(1.0, 1, max_actors)
    return DetectorPool(launcher, resources, START_SECONDS, precision, clock)  # type: ignore[arg-type]


def _follow(
    launcher: FakeLauncher, clock: Clock, *names: str, max_actors: int | None = None
) -> DetectorPool:
    """A pool with one actor on each of these nodes."""
    pool = _pool(launcher, clock, max_actors)
    pool.follow(make_capacity(*(make_host(name, gpus=1) for name in names)))
    return pool


def _flight(row: int | None = None) -> Flight:
    return Flight(Piece(Shard(0, "0" * 24, 0, 99), row))


def test_nodes_that_join_get_actors_and_lost_nodes_are_forgotten(
    launcher: FakeLauncher, clock: Clock
) -> None:
    first, second, third = (make_host(name, gpus=2) for name in "abc")
    pool = _pool(launcher, clock)
    pool.follow(make_capacity(first, second))
    assert sorted(launcher.nodes) == ["a", "a", "b", "b"]
    pool.follow(make_capacity(first))
    assert pool.size == 2
    pool.follow(make_capacity(first, third))
    assert launcher.nodes[4:] == ["c", "c"]
    assert pool.size == 4


def test_the_first_actor_that_is_ready_decides_the_precision_of_all(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """An actor that chose another one is restarted with it: rows must not vary by node."""

    def start(actor: FakeActor) -> StartResult:
        if actor.node == "c":  # fails in the same moment; the actor that is ready goes on
            return start_error(ModuleNotFoundError("torch"))
        choice = {"a": "bf16", "b": "fp32"}[actor.node]
        return choice if actor.precision == "auto" else actor.precision

    launcher.start = start
    capacity = make_capacity(*(make_host(name, gpus=1) for name in "abc"))
    pool = _pool(launcher, clock)
    pool.follow(capacity)
    assert (pool.precision, pool.size) == ("bf16", 1)
    assert [actor.is_ended for actor in launcher.launched] == [False, True, True]
    pool.follow(capacity)
    assert pool.size == 2
    assert [(actor.node, actor.precision) for actor in launcher.launched[3:]] == [
        ("b", "bf16"),
        ("c", "bf16"),
    ]


def test_few_actors_are_spread_over_the_nodes(launcher: FakeLauncher, clock: Clock) -> None:
    pool = _pool(launcher, clock, max_actors=4)
    pool.follow(make_capacity(*(make_host(name, gpus=8) for name in "abc")))
    assert sorted(launcher.nodes) in (
        ["a", "a", "b", "c"],
        ["a", "b", "b", "c"],
        ["a", "b", "c", "c"],
    )


def test_a_piece_goes_where_its_images_are_unless_that_actor_has_more_to_do(
    launcher: FakeLauncher, clock: Clock
) -> None:
    pool = _follow(launcher, clock, "a", "b")
    actors: list[Any] = [pool.hand_out(_flight(), node="b") for _ in range(4)]
    assert [actor.node for actor in actors] == ["b", "b", "a", "b"]


def test_only_the_first_piece_of_a_dead_actor_was_at_work(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """Whichever of its pieces the pool hears of first."""
    pool = _follow(launcher, clock, "a")
    first, second = _flight(), _flight()
    pool.hand_out(first)
    pool.hand_out(second)
    assert pool.replace_lost(second, rx.ActorDiedError()) is False
    assert len(launcher.launched) == 2, "another actor replaces it"
    assert pool.replace_lost(first, rx.ActorDiedError()) is True
    assert pool.size == 1


def test_without_a_ready_actor_nothing_is_handed_out(launcher: FakeLauncher, clock: Clock) -> None:
    pool = _follow(launcher, clock, "a")
    pool.follow(make_capacity(make_host("b", cpus=4)))
    assert not pool.has_ready()
    assert pool.hand_out(_flight()) is None


def test_detectors_that_always_die_end_the_run(launcher: FakeLauncher, clock: Clock) -> None:
    pool = _follow(launcher, clock, "a")
    flights = [_flight() for _ in range(MAX_LOSSES_IN_A_ROW + 1)]
    for flight in flights[:-1]:
        pool.hand_out(flight)
        pool.replace_lost(flight, rx.ActorDiedError())
    pool.hand_out(flights[-1])
    with pytest.raises(ShardFailed, match="21 detector actors died one after the other"):
        pool.replace_lost(flights[-1], rx.ActorDiedError())


def test_images_that_end_their_detector_alone_are_not_the_detectors_fault(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """A folder may hold any number of them, and `--retry-failed` does them one after the other."""
    pool = _follow(launcher, clock, "a")

    def lose(row: int | None) -> None:
        flight = _flight(row)
        pool.hand_out(flight)
        assert pool.replace_lost(flight, rx.ActorDiedError()) is True

    for row in range(3 * MAX_LOSSES_IN_A_ROW):
        lose(row)
    pool.take_back(_flight(99))
    for row in range(MAX_SINGLE_LOSSES_IN_A_ROW):
        lose(row)
    with pytest.raises(ShardFailed, match="201 detector actors died one after the other"):
        lose(99)


def test_shards_with_a_poison_image_each_do_not_end_the_run(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """Each is done image by image before the next, and its good images reset the count."""
    pool = _follow(launcher, clock, "a")
    queue = PieceQueue([Piece(Shard(i, f"{i:024x}", 2 * i, 2)) for i in range(30)])
    losses: Counter[Piece] = Counter()
    while (piece := queue.take()) is not None:
        flight = Flight(piece)
        pool.hand_out(flight)
        if piece.row == 1:
            pool.take_back(flight)
            continue
        pool.replace_lost(flight, rx.ActorDiedError())
        losses[piece] += 1
        if losses[piece] < 2:
            queue.retry(piece)
        elif piece.is_whole:
            queue.add_first([Piece(piece.shard, row) for row in range(2)])


def test_if_no_detector_ever_starts_the_third_failure_ends_the_run(
    launcher: FakeLauncher, clock: Clock
) -> None:
    launcher.start = lambda actor: start_error(NoCapacity("cuda does not work: no driver"))
    capacity = make_capacity(make_host("a", gpus=1))
    pool = _pool(launcher, clock)
    pool.follow(capacity)
    pool.follow(capacity)
    with pytest.raises(NoCapacity, match="cuda does not work: no driver"):
        pool.follow(capacity)


def test_a_node_whose_detectors_fail_is_avoided_for_a_while_if_others_have_started(
    launcher: FakeLauncher, clock: Clock
) -> None:
    first, second = make_host("a", gpus=1), make_host("b", gpus=1)
    pool = _pool(launcher, clock)
    pool.follow(make_capacity(second))
    launcher.start = lambda actor: (
        start_error(ModuleNotFoundError("torch")) if actor.node == "a" else "fp32"
    )
    for _ in range(5):
        pool.follow(make_capacity(first, second))
    assert launcher.nodes == ["b", "a", "a", "a"]
    clock.now += AVOID_SECONDS
    pool.follow(make_capacity(first, second))
    assert launcher.nodes[4:] == ["a"]


@pytest.mark.parametrize(
    "cause", [InvalidCheckpoint("it is damaged"), ModuleNotFoundError("torch")]
)
def test_the_first_failure_ends_the_run_if_no_retry_can_change_it(
    cause: Exception, launcher: FakeLauncher, clock: Clock
) -> None:
    launcher.start = lambda actor: start_error(cause)
    expected = InvalidCheckpoint if isinstance(cause, InvalidCheckpoint) else rx.RayTaskError
    with pytest.raises(expected, match=str(cause)):
        _follow(launcher, clock, "a")


@pytest.mark.parametrize(
    ("missing", "failure", "reason"),
    [
        (
            "GPU 1 (of 0 living nodes)",
            "the actor died",
            r"the cluster lacks GPU 1 \(of 0 living nodes\)",
        ),
        (None, "cuda does not work on a", "cuda does not work on a"),
        (None, "", "the cluster lacks a free GPU 1: others hold all"),
    ],
)
def test_the_error_says_why_no_detector_has_a_place(
    missing: str | None, failure: str, reason: str, launcher: FakeLauncher, clock: Clock
) -> None:
    launcher.missing = missing
    launcher.start = lambda actor: start_error(NoCapacity(failure)) if failure else None
    pool = _follow(launcher, clock, "a")
    clock.now += START_SECONDS + 1
    with pytest.raises(NoCapacity, match=f"could start for 5 s: {reason}; committed shards"):
        pool.follow(make_capacity())


def test_an_autoscaler_is_asked_for_gpus_that_no_node_has_yet(clock: Clock) -> None:
    nodes = [make_host("a")]

    def capacity() -> Capacity:
        if launcher.requested:
            nodes.append(make_host("b", gpus=2))
        return make_capacity(*nodes)

    launcher = FakeLauncher(capacity)
    pool = _pool(launcher, clock, max_actors=2, precision="fp32")
    pool.await_first()
    assert launcher.requested == [2, 0]
    assert pool.size == 2
    pool.close()
    assert all(actor.is_ended for actor in launcher.launched)


def test_detectors_without_work_are_released_while_others_finish(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """As long as pieces are queued or read, each keeps its place; at the end only busy ones do."""
    capacity = make_capacity(*(make_host(name, gpus=1) for name in "abc"))
    pool = _pool(launcher, clock)
    pool.follow(capacity, waiting=9)
    flights = [_flight(), _flight()]
    nodes = {pool.hand_out(flight).node for flight in flights}  # type: ignore[union-attr]
    pool.follow(capacity, waiting=1)
    assert pool.size == 3
    pool.follow(capacity, waiting=0)
    assert pool.size == 2
    assert {actor.node for actor in launcher.launched if not actor.is_ended} == nodes
    pool.take_back(flights[0])
    pool.follow(capacity, waiting=0)
    assert (pool.size, len(launcher.launched)) == (1, 3)
    assert pool.replace_lost(flights[1], rx.ActorDiedError())  # its piece needs an actor again
    assert (pool.size, len(launcher.launched)) == (1, 4)


def test_a_run_starts_no_more_detectors_than_it_has_pieces(
    launcher: FakeLauncher, clock: Clock
) -> None:
    resources = ActorResources(1.0, 1, 8)
    pool = DetectorPool(launcher, resources, START_SECONDS, "fp32", clock, pieces=3)  # type: ignore[arg-type]
    pool.follow(make_capacity(make_host("a", gpus=8)))
    assert pool.size == 3
    assert not launcher.requested


def test_detectors_on_gpus_double_while_each_has_a_piece_waiting(
    launcher: FakeLauncher, clock: Clock
) -> None:
    capacity = make_capacity(make_host("a", gpus=2))
    pool = _pool(launcher, clock)
    pool.follow(capacity, waiting=9)
    for _ in range(3):
        pool.hand_out(_flight())
    pool.follow(capacity, waiting=9)
    assert not launcher.requested, "one has nothing to do after its present piece"
    pool.hand_out(_flight())
    pool.follow(capacity, waiting=1)
    assert launcher.requested == [1], "no more than there are pieces"
    pool.follow(capacity, waiting=9)
    assert launcher.requested == [1, 2]
    pool.close()
    assert launcher.requested == [1, 2, 0]


def test_a_place_that_others_hold_is_given_up_for_a_new_node(
    launcher: FakeLauncher, clock: Clock
) -> None:
    """Another job's detectors hold the GPUs of node a, which count as places but are none."""
    launcher.start = lambda actor: None if actor.node == "a" else "fp32"
    first, second = make_host("a", gpus=1), make_host("b", gpus=1)
    resources = ActorResources(1.0, 1, 1)
    pool = DetectorPool(launcher, resources, 1000.0, "fp32", clock)  # type: ignore[arg-type]
    pool.follow(make_capacity(first))
    assert (launcher.nodes, launcher.requested) == (["a"], [])
    clock.now += PLACE_SECONDS + 1
    pool.follow(make_capacity(first))
    assert (pool.size, launcher.requested) == (0, [1])
    pool.follow(make_capacity(first, second))
    assert (launcher.nodes, launcher.requested) == (["a", "b"], [1, 0])
    assert pool.has_ready()
