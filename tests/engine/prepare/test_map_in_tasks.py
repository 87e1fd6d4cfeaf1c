"""Reading in tasks while nodes come and go, with a cluster of plain objects in place of Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.prepare import _connect
from jobs.prepare_options import Folder, Voc
from pipeline.engine import cluster
from pipeline.engine.prepare import task_mapper
from pipeline.engine.prepare.task_mapper import map_in_tasks
from pipeline.errors import InvalidConfiguration, NoCapacity
from pipeline.runs.placement import Need


class FakeCluster:
    """A cluster whose tasks end only while it has a core."""

    def __init__(self) -> None:
        self.cpus = 1
        self.now = 0.0
        self.can_work = True
        self.started = 0
        self.most_waiting = 0
        self._waiting = 0

    def start(self, function: Any, stores: Any, items: Any) -> Any:
        self.started += 1
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        return [(function(item), None) for item in items]

    def wait(
        self, references: list[Any], timeout: float, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        self.now += 0 if self.can_work else timeout
        return (references, []) if self.can_work else ([], references)

    def get(self, reference: Any) -> Any:
        self._waiting -= 1
        return reference

    def describe_missing(self, need: Need) -> str | None:
        assert need.amounts == {"CPU": 1.0}
        return None if self.can_work else "CPU 1 (of 0 living nodes none has more than 0)"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(task_mapper, "monotonic", lambda: fake.now)
    monkeypatch.setattr(
        task_mapper,
        "ray",
        SimpleNamespace(put=lambda value: value, get=fake.get),
    )
    monkeypatch.setattr(cluster, "ray", SimpleNamespace(wait=fake.wait))
    monkeypatch.setattr(cluster, "monotonic", lambda: fake.now)
    monkeypatch.setattr(task_mapper, "_read_group", SimpleNamespace(remote=fake.start))
    monkeypatch.setattr(cluster, "get_capacity", lambda: SimpleNamespace(cpus=fake.cpus))
    monkeypatch.setattr(cluster, "describe_missing", fake.describe_missing)
    return fake


def _square(number: int) -> int:
    return number * number


def test_results_keep_their_order_and_few_tasks_wait(fake: FakeCluster) -> None:
    results = [future.result() for future in map_in_tasks(_square, range(100))]
    assert results == [number * number for number in range(100)]
    assert fake.most_waiting == task_mapper.TASKS_PER_CORE


def test_nodes_that_join_get_tasks(fake: FakeCluster) -> None:
    futures = map_in_tasks(_square, range(2000))
    next(futures)
    fake.cpus = 4
    fake.now += cluster.CAPACITY_EVERY + 1
    assert [future.result() for future in futures][-1] == 1999 * 1999
    assert fake.most_waiting == task_mapper.TASKS_PER_CORE * 4


def test_a_cluster_without_a_core_is_named_after_the_patience(fake: FakeCluster) -> None:
    futures: Iterator[Any] = map_in_tasks(_square, range(100), no_capacity_after=60)
    next(futures)
    fake.can_work = False
    with pytest.raises(
        NoCapacity, match=r"^for 60 s the cluster has lacked CPU 1 .*; run again when"
    ):
        list(futures)
    assert 60 < fake.now < 100


def test_prepare_waits_for_a_core_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(cluster, "connect_to_cluster", contextlib.nullcontext)
    monkeypatch.setattr(cluster, "await_core", waited.append)
    with _connect(Folder(images="i", output="o", distribute=True, no_capacity_after=9.0)):
        assert waited == [9.0]
    for here in (Folder(images="i", output="o"), Voc(root="r", output="o")):
        with _connect(here):
            assert waited == [9.0]
    with pytest.raises(InvalidConfiguration, match="--no-capacity-after is 0"):
        Folder(images="i", output="o", no_capacity_after=0)
