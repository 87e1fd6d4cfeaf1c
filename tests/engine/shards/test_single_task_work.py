"""Work of one stage: how many pieces are on their way, and what its tasks need."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from pipeline.engine.capacity import Capacity, Host
from pipeline.engine.shards.single_task_work import SingleTaskWork

CAPACITY = Capacity(
    36, 2.0, 1e9, 1e9, (Host("cores", 32, 0.0, 1e9), Host("gpus", 4, 2.0, 1e9, {"GPU": 2.0}))
)


@pytest.mark.parametrize(
    ("gpus", "slots", "need"), [(0.0, 36, "CPU 1"), (1.0, 2, "CPU 1 and GPU 1")]
)
def test_two_pieces_for_each_task_that_can_be_at_work(gpus: float, slots: int, need: str) -> None:
    work = SingleTaskWork("features", "features", Mock(), Mock(), gpus=gpus)
    flights = [Mock() for _ in range(2 * slots)]
    assert work.has_room(flights[1:], CAPACITY)
    assert not work.has_room(flights, CAPACITY)
    (load,) = work.measure_flow(flights, CAPACITY).stages
    assert (load.slots, load.busy, load.waiting) == (slots, slots, slots)
    assert [str(need) for need in work.list_needs()] == [need]
