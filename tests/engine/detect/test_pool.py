"""How many detectors a node gets, and which one a piece goes to; the actors themselves stand aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import exceptions as rx

from pipeline.engine.cluster import Capacity, Host
from pipeline.engine.detect import pool as detector_pool
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.engine.shards.work import Flight
from pipeline.errors import NoCapacity, ShardFailed
from pipeline.shards import Shard

GB = 1e9


def _host(name: str, cpus: int = 4, gpus: float = 0.0, memory: float = 64 * GB) -> Host:
    return Host(name, cpus, gpus, memory)


def _capacity(*hosts: Host) -> Capacity:
    cpus, gpus = sum(host.cpus for host in hosts), sum(host.gpus for host in hosts)
    return Capacity(cpus, gpus, sum(host.memory for host in hosts), 1 * GB, hosts)


@pytest.mark.parametrize(
    ("gpus", "host", "actors"),
    [
        (0.0, _host("a", cpus=4), 4),
        (0.0, _host("a", cpus=4, memory=3.5 * GB), 2),  # 1.5 GB each
        (0.0, _host("a", cpus=4, memory=1 * GB), 1),
        (0.0, _host("head", cpus=0), 0),
        (1.0, _host("a", gpus=8), 8),
        (2.0, _host("a", gpus=3), 1),
        (0.4, _host("a", gpus=2), 4),  # two to a GPU: what is left of both holds no fifth
        (0.1, _host("a", gpus=1), 10),
        (1.0, _host("a", cpus=16), 0),
    ],
)
def test_actors_that_a_node_can_hold(gpus: float, host: Host, actors: int) -> None:
    assert ActorResources(gpus, 1).on(host) == actors


def test_an_asked_number_is_spread_over_the_nodes_and_never_more_than_gpus_hold() -> None:
    two = _capacity(_host("a", gpus=2), _host("b", gpus=2))
    assert ActorResources(1.0, 1, most=3).total(two) == 3
    assert ActorResources(1.0, 1, most=9).total(two) == 4
    assert ActorResources(0.0, 1, most=9).total(_capacity(_host("a", cpus=2))) == 9


def test_gpu_actors_leave_cores_for_the_tasks_that_feed_them() -> None:
    assert ActorResources(1.0, 2).cpus(_host("a", cpus=8, gpus=4)) == 1.0
    assert ActorResources(1.0, 2).cpus(_host("a", cpus=4, gpus=4)) == 0.0
    assert ActorResources(0.0, 1).cpus(_host("a")) == 0.0


class Stand:
    """Stands for an actor that is placed and ready at once."""

    def __init__(self, node: str) -> None:
        self.node = node


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Stand]:
    """The actors that were started, in order; none of them is real."""
    actors: list[Stand] = []

    def start(pool: DetectorPool, host: Host) -> None:
        actors.append(Stand(host.node))
        member = detector_pool._Member(actors[-1], host.node, None, None, ready=True)  # type: ignore[arg-type]
        pool._members.append(member)

    monkeypatch.setattr(DetectorPool, "_start", start)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    return actors


def _pool(capacity: Capacity, most: int | None = None) -> DetectorPool:
    pool = DetectorPool(None, ActorResources(1.0, 1, most), 1.0, "auto")  # type: ignore[arg-type]
    pool.follow(capacity)
    return pool


def _flight(row: int | None = None) -> Flight:
    return Flight(Piece(Shard(0, "0" * 24, 0, 99), row))


def _nodes(started: list[Stand]) -> list[str]:
    return [actor.node for actor in started]


def test_nodes_that_join_get_their_actors_and_lost_ones_are_forgotten(started: list[Stand]) -> None:
    first, second, third = (_host(name, gpus=2) for name in "abc")
    pool = _pool(_capacity(first, second))
    assert sorted(_nodes(started)) == ["a", "a", "b", "b"]
    pool.follow(_capacity(first))
    assert pool.size == 2
    pool.follow(_capacity(first, third))
    assert _nodes(started)[4:] == ["c", "c"]
    assert pool.size == 4


def test_the_first_that_is_ready_settles_the_arithmetic_of_all(started: list[Stand]) -> None:
    """One that computes otherwise by itself is replaced by one that is told; rows must not vary by node."""
    pool = _pool(_capacity(_host("a", gpus=1), _host("b", gpus=1)))
    first, second = pool._members
    first.ready = second.ready = False
    pool._welcome(first, "bf16")
    pool._welcome(second, "fp32")
    assert (pool.precision, pool.size, first.ready) == ("bf16", 1, True)
    # In the same look another node turns out to lack torch: the one that is ready goes on.
    pool._failed_start(second, rx.RayTaskError("ready", "", ModuleNotFoundError("torch")))
    pool.follow(_capacity(_host("a", gpus=1), _host("b", gpus=1)))
    assert pool.size == 2


def test_few_actors_are_spread(started: list[Stand]) -> None:
    _pool(_capacity(*(_host(name, gpus=8) for name in "abc")), most=4)
    assert sorted(_nodes(started)) in (
        ["a", "a", "b", "c"],
        ["a", "b", "b", "c"],
        ["a", "b", "c", "c"],
    )


def test_a_piece_goes_where_its_images_are_unless_that_actor_has_more_to_do(
    started: list[Stand],
) -> None:
    pool = _pool(_capacity(_host("a", gpus=1), _host("b", gpus=1)))
    handed: list[Any] = [pool.hand_out(_flight(), node="b").node for _ in range(4)]
    assert handed == ["b", "b", "a", "b"]


def test_only_the_first_piece_of_a_dead_actor_was_at_work(started: list[Stand]) -> None:
    """Whichever of its pieces is heard of first."""
    pool = _pool(_capacity(_host("a", gpus=1)))
    first, second = _flight(), _flight()
    pool.hand_out(first)
    pool.hand_out(second)
    assert pool.lost(second, rx.ActorDiedError()) is False
    assert len(started) == 2, "another one is started in its stead"
    assert pool.lost(first, rx.ActorDiedError()) is True
    assert pool.size == 1


def test_without_a_ready_actor_nothing_is_handed_out(started: list[Stand]) -> None:
    pool = _pool(_capacity(_host("a", gpus=1)))
    pool.follow(_capacity(_host("b", cpus=4)))
    assert not pool.has_ready()
    assert pool.hand_out(_flight()) is None


def test_detectors_that_always_die_end_the_run(started: list[Stand]) -> None:
    pool = _pool(_capacity(_host("a", gpus=1)))
    pieces = [_flight() for _ in range(detector_pool.MOST_LOSSES_IN_A_ROW + 1)]
    for piece in pieces[:-1]:
        pool.hand_out(piece)
        pool.lost(piece, rx.ActorDiedError())
    pool.hand_out(pieces[-1])
    with pytest.raises(ShardFailed, match="21 detector actors died one after the other"):
        pool.lost(pieces[-1], rx.ActorDiedError())


def test_images_that_end_their_detector_alone_are_no_fault_of_the_detector(
    started: list[Stand],
) -> None:
    """A folder may hold any number of them, and `--retry-failed` does them one after the other."""
    pool = _pool(_capacity(_host("a", gpus=1)))

    def lose(row: int | None) -> None:
        flight = _flight(row)
        pool.hand_out(flight)
        assert pool.lost(flight, rx.ActorDiedError()) is True

    for row in range(3 * detector_pool.MOST_LOSSES_IN_A_ROW):
        lose(row)
    pool.done(_flight(99))
    for row in range(detector_pool.MOST_SINGLE_LOSSES_IN_A_ROW):
        lose(row)
    with pytest.raises(ShardFailed, match="201 detector actors died one after the other"):
        lose(99)


def test_shards_with_a_poison_image_each_do_not_end_the_run(started: list[Stand]) -> None:
    """Each is done image by image before the next, and those of its images that are good tell so."""
    pool = _pool(_capacity(_host("a", gpus=1)))
    queue = PieceQueue([Piece(Shard(i, f"{i:024x}", 2 * i, 2)) for i in range(30)])
    lost: Counter[Piece] = Counter()
    while (piece := queue.take()) is not None:
        flight = Flight(piece)
        pool.hand_out(flight)
        if piece.row == 1:
            pool.done(flight)
            continue
        pool.lost(flight, rx.ActorDiedError())
        lost[piece] += 1
        if lost[piece] < 2:
            queue.again(piece)
        elif piece.whole:
            queue.add_first([Piece(piece.shard, row) for row in range(2)])


@pytest.mark.parametrize("ready_before", [False, True])
def test_a_device_that_does_not_work_is_its_nodes_trouble(
    started: list[Stand], ready_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go on; the node is left alone for a while, and where there is no other the reason is told."""
    cause = (
        ModuleNotFoundError("torch")
        if ready_before
        else NoCapacity("cuda does not work: no driver")
    )
    error = rx.RayTaskError("ready", "", cause)
    capacity = _capacity(_host("a", gpus=1))
    pool = _pool(capacity)
    pool._was_ready = ready_before

    def fail() -> None:
        (member,) = pool._members
        pool._drop(member)
        pool._failed_start(member, error)
        pool._start(capacity.hosts[0])

    fail()
    fail()
    if ready_before:
        fail()
        assert pool._left_alone("a")
    else:
        with pytest.raises(NoCapacity, match="cuda does not work: no driver"):
            fail()


def _note(asked: list[list[dict[str, float]]]) -> Callable[..., None]:
    def request(*, bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)

    return request


@pytest.mark.parametrize(
    ("missing", "failure", "told"),
    [
        ("GPU 1 (of 0 living nodes)", "the actor died", r"missing is GPU 1 \(of 0 living nodes\)"),
        (None, "cuda does not work on a", "cuda does not work on a"),
        (None, "", "missing is GPU 1, which others hold"),
    ],
)
def test_why_no_detector_has_a_place_is_told(
    missing: str | None,
    failure: str,
    told: str,
    started: list[Stand],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detector_pool.cluster, "missing", lambda need: missing)
    pool = _pool(_capacity(_host("a", gpus=1)))
    pool._last_failure = failure
    pool._placed_seen -= 10
    with pytest.raises(NoCapacity, match=f"placed and started: {told}; what was done is committed"):
        pool.follow(_capacity())


def test_an_autoscaler_hears_of_gpus_that_no_node_has_yet(
    started: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[dict[str, float]]] = []
    nodes = [_host("a")]
    monkeypatch.setattr(detector_pool, "request_resources", _note(asked))

    def capacity() -> Capacity:
        if asked:
            nodes.append(_host("b", gpus=2))
        return _capacity(*nodes)

    monkeypatch.setattr(detector_pool.cluster, "capacity", capacity)
    pool = DetectorPool(None, ActorResources(1.0, 1, 2), 60.0, "fp32")  # type: ignore[arg-type]
    pool.await_first()
    assert asked == [[{"GPU": 1.0}] * 2]
    assert pool.size == 2
    pool.close()
    assert asked[1:] == [[]]


def test_actors_are_started_on_their_node_with_what_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[dict[str, Any], tuple[Any, ...]]] = []

    class Actor:
        @staticmethod
        def options(**options: Any) -> Any:
            def remote(*arguments: Any) -> Any:
                calls.append((options, arguments))
                answer = SimpleNamespace(remote=lambda: None)
                return SimpleNamespace(__ray_ready__=answer, ready=answer)

            return SimpleNamespace(remote=remote)

    monkeypatch.setattr(detector_pool, "DetectorActor", Actor)
    monkeypatch.setattr(DetectorPool, "has_ready", lambda pool: True)
    host = _host("a" * 56, cpus=8, gpus=2)
    pool = DetectorPool("plan", ActorResources(1.0, 1), 1.0, "bf16")  # type: ignore[arg-type]
    pool.follow(_capacity(host))
    assert [arguments for _, arguments in calls] == [("plan", "bf16")] * 2
    assert {options["num_gpus"] for options, _ in calls} == {1.0}
    assert {options["scheduling_strategy"].node_id for options, _ in calls} == {host.node}
    assert pool.reserved_cpus == sum(options["num_cpus"] for options, _ in calls) == 2
