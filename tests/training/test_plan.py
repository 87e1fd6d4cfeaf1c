"""The plan: each image once per epoch, ranks that partition it, a position to go on from."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.plan import Plan, ShardRows, generator


def make_plan(sizes, seed=0, window=3):
    shards = [
        ShardRows(0, ordinal, np.arange(size, dtype=np.int32)) for ordinal, size in enumerate(sizes)
    ]
    return Plan(shards, seed, window)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 5), st.integers(1, 5))
def test_every_image_comes_once_per_epoch(sizes, epoch, window):
    plan = make_plan(sizes, window=window)
    places = [(p.shard, p.row) for p in plan.epoch(epoch)]
    assert sorted(places) == [(s, r) for s, size in enumerate(sizes) for r in range(size)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 200), st.integers(1, 5))
def test_going_on_from_a_position_gives_the_same_stream(sizes, position, window):
    plan = make_plan(sizes, window=window)
    whole = list(islice(plan.samples(), position + 20))
    assert list(islice(plan.samples(position), 20)) == whole[position:]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_partition_the_stream(workers):
    plan = make_plan([4, 7, 2, 6])
    whole = list(islice(plan.samples(), 60))
    parts = [list(islice(plan.samples(0, rank, workers), 60 // workers)) for rank in range(workers)]
    assert [part[0].number for part in parts] == list(range(workers))
    assert sorted((s for part in parts for s in part), key=lambda s: s.number) == whole


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {
        (seed, epoch): tuple((p.shard, p.row) for p in make_plan([5, 5, 5], seed).epoch(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple((p.shard, p.row) for p in make_plan([5, 5, 5], 1).epoch(1))


def test_rows_left_out_never_come():
    plan = Plan([ShardRows(0, 0, np.array([1, 4], np.int32))], seed=0)
    assert {p.row for p in plan.epoch(0)} == {1, 4}
    assert plan.images == 2


def test_a_window_spans_no_more_shards_than_told():
    plan = make_plan([4] * 12, window=3)
    places = list(plan.epoch(0))
    windows = [{p.shard for p in places[i : i + 12]} for i in range(0, 48, 12)]
    assert [len(window) for window in windows] == [3, 3, 3, 3]


def test_a_plan_of_no_images_ends():
    assert list(make_plan([0, 0]).samples()) == []


def test_generators_are_keyed_by_values():
    draw = generator(1, 2, "a").random()
    assert draw == generator(1, 2, "a").random()
    assert draw != generator(12, "a").random()
