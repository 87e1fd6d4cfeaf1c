"""How many detectors a node can hold, and what each takes."""

from __future__ import annotations

import pytest

from pipeline.engine.capacity import Host
from pipeline.engine.detect.resources import (
    ActorOptions,
    ActorResources,
    choose_actor_resources,
)
from pipeline.runs.placement import ANYWHERE, Placement
from tests.engine.detect.fake_launcher import GB, make_capacity, make_host


@pytest.mark.parametrize(
    ("gpus", "host", "actors"),
    [
        (0.0, make_host("a", cpus=4), 4),
        (0.0, make_host("a", cpus=4, memory=3.5 * GB), 2),  # 1.5 GB each
        (0.0, make_host("a", cpus=4, memory=1 * GB), 1),
        (0.0, make_host("head", cpus=0), 0),
        (1.0, make_host("a", gpus=8), 8),
        (2.0, make_host("a", gpus=3), 1),
        (0.4, make_host("a", gpus=2), 4),  # two to a GPU: the rests of both hold no fifth
        (0.1, make_host("a", gpus=1), 10),
        (1.0, make_host("a", cpus=16), 0),
    ],
)
def test_a_node_holds_actors_by_its_gpus_or_its_cores_and_memory(
    gpus: float, host: Host, actors: int
) -> None:
    assert ActorResources(gpus, 1).count_on(host) == actors


def test_actors_are_at_most_as_many_as_asked_for_and_as_the_gpus_hold() -> None:
    two = make_capacity(make_host("a", gpus=2), make_host("b", gpus=2))
    assert ActorResources(1.0, 1, max_actors=3).count_all(two.hosts) == 3
    assert ActorResources(1.0, 1, max_actors=9).count_all(two.hosts) == 4
    one = make_capacity(make_host("a", cpus=2))
    assert ActorResources(0.0, 1, max_actors=9).count_all(one.hosts) == 9


def test_actors_go_where_their_placement_allows() -> None:
    placement = Placement({"fast": 1}, {"market": "!spot"})
    host = Host("a", 8, 0, 64 * GB, {"CPU": 8, "fast": 3}, {"market": "stable"})
    assert ActorResources(0.0, 1, placement=placement).count_on(host) == 3
    assert ActorResources(0.0, 1, 2, placement).count_on(host) == 2
    assert ActorResources(0.0, 1, placement=placement).count_on(make_host("b")) == 0
    on_spot = Host("c", 8, 0, 64 * GB, {"CPU": 8, "fast": 3}, {"market": "spot"})
    assert ActorResources(0.0, 1, placement=placement).count_on(on_spot) == 0
    need = ActorResources(0.5, 1, placement=placement).need
    assert (need.amounts, need.labels) == ({"GPU": 0.5, "fast": 1}, {"market": "!spot"})


def test_tasks_count_the_cores_of_nodes_that_may_run_them() -> None:
    hosts = (
        Host("a", 8, 0, GB, {"CPU": 8}, {"market": "spot"}),
        Host("b", 4, 1, GB, {"CPU": 4, "GPU": 1}, {}),
    )
    capacity = make_capacity(*hosts)
    assert capacity.count_tasks(ANYWHERE) == 12
    assert capacity.count_tasks(Placement(labels={"market": "spot"})) == 8
    assert capacity.count_tasks(Placement({"fast": 1})) == 1  # a node with it may join


def test_gpu_actors_leave_cores_for_the_tasks_that_feed_them() -> None:
    assert (
        ActorResources(1.0, 2).reserve_cpus(make_host("a", cpus=8, gpus=1)) == 2.0
    )  # its threads'
    assert ActorResources(1.0, 2).reserve_cpus(make_host("a", cpus=2, gpus=1)) == 1.0
    assert ActorResources(1.0, 2).reserve_cpus(make_host("a", cpus=8, gpus=4)) == 1.0
    assert ActorResources(1.0, 2).reserve_cpus(make_host("a", cpus=4, gpus=4)) == 0.0
    assert ActorResources(0.0, 1).reserve_cpus(make_host("a")) == 0.0


def test_actors_use_gpus_if_the_cluster_has_any() -> None:
    with_gpus, without = make_capacity(make_host("a", gpus=2)), make_capacity(make_host("a"))
    assert choose_actor_resources(with_gpus, ActorOptions()) == ActorResources(1.0, 2)
    assert choose_actor_resources(without, ActorOptions(3)) == ActorResources(0.0, 1, 3)
    assert choose_actor_resources(with_gpus, ActorOptions(None, 0)) == ActorResources(0, 1)
    assert choose_actor_resources(with_gpus, ActorOptions()).device == "cuda"
    assert choose_actor_resources(without, ActorOptions()).device == "cpu"
