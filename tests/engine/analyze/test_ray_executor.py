"""Reductions on Ray: the values of the calls are merged in tasks, and errors end them at once."""

from __future__ import annotations

import numpy as np
import pytest
import ray

from pipeline.analysis.executor import InProcess
from pipeline.engine.analyze import ray_executor
from pipeline.engine.analyze.ray_executor import RayExecutor
from pipeline.errors import UnreadableDataset
from pipeline.runs.placement import Placement


def add(first, second):
    first += second  # as merges do; Ray's own arrays cannot be changed
    return first


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("calls", [1, 2, 23])
def test_values_are_merged_in_any_order(calls, monkeypatch):
    monkeypatch.setattr(ray_executor, "MERGED_TOGETHER", 3)

    def fill(shared, number):
        return np.full(50_000, number) + shared

    executor = RayExecutor()
    shared = executor.share(7)
    reduced = executor.reduce(fill, ((shared, number) for number in range(calls)), add)
    expected = InProcess().reduce(fill, ((7, number) for number in range(calls)), add)
    assert expected[0] == sum(range(calls)) + 7 * calls
    np.testing.assert_array_equal(reduced, expected)
    assert executor.count_cores() == 2


@pytest.mark.usefixtures("ray_cluster")
def test_an_error_ends_a_reduction_before_all_calls_are_started():
    started = []

    def list_calls():
        for number in range(1000):
            started.append(number)
            yield (number,)

    def fail(number):
        raise UnreadableDataset(f"part {number} is damaged")

    with pytest.raises(UnreadableDataset, match=r"part \d is damaged"):
        RayExecutor().reduce(fail, list_calls(), add)
    assert len(started) < 10


def list_assigned() -> dict[str, float]:
    return dict(ray.get_runtime_context().get_assigned_resources())


def test_tasks_take_the_resources_of_the_placement() -> None:
    head = Placement({"node:__internal_head__": 0.01})
    executor = RayExecutor(head)
    assert executor.collect(executor.submit(list_assigned)) == [
        {"CPU": 1.0, "node:__internal_head__": 0.01}
    ]
    assert executor.count_cores() == RayExecutor().count_cores()
    assert RayExecutor(Placement({}, {"market": "spot"})).count_cores() == 1
