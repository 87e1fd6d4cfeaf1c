"""The order of samples: every image once per epoch, workers that partition it, exact resuming."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from pipeline.training.sample_order import SampleOrder, ShardRows, make_generator


def make_order(sizes, seed=0, window=3):
    shards = [
        ShardRows(0, ordinal, np.arange(size, dtype=np.int32)) for ordinal, size in enumerate(sizes)
    ]
    return SampleOrder(shards, seed, window)


@given(
    lists(integers(0, 9), min_size=1, max_size=12),
    integers(0, 5),
    integers(1, 5),
)
def test_every_image_comes_once_per_epoch(sizes, epoch, window):
    order = make_order(sizes, window=window)
    places = [(p.shard, p.row) for p in order.iterate_epoch(epoch)]
    assert sorted(places) == [(s, r) for s, size in enumerate(sizes) for r in range(size)]


@given(
    lists(integers(1, 9), min_size=1, max_size=9),
    integers(0, 200),
    integers(1, 5),
)
def test_resuming_at_a_position_gives_the_same_stream(sizes, position, window):
    order = make_order(sizes, window=window)
    whole = list(islice(order.iterate_samples(), position + 20))
    assert list(islice(order.iterate_samples(position), 20)) == whole[position:]


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_partition_the_stream(workers):
    order = make_order([4, 7, 2, 6])
    whole = list(islice(order.iterate_samples(), 60))
    parts = [
        list(islice(order.iterate_samples(0, rank, workers), 60 // workers))
        for rank in range(workers)
    ]
    assert [part[0].number for part in parts] == list(range(workers))
    assert sorted((s for part in parts for s in part), key=lambda s: s.number) == whole


def test_the_order_depends_on_seed_and_epoch_alone():
    orders = {
        (seed, epoch): tuple(
            (p.shard, p.row) for p in make_order([5, 5, 5], seed).iterate_epoch(epoch)
        )
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple(
        (p.shard, p.row) for p in make_order([5, 5, 5], 1).iterate_epoch(1)
    )


def test_rows_that_are_left_out_never_come():
    order = SampleOrder([ShardRows(0, 0, np.array([1, 4], np.int32))], seed=0)
    assert {p.row for p in order.iterate_epoch(0)} == {1, 4}
    assert order.images == 2


def test_a_window_spans_no_more_shards_than_its_size():
    order = make_order([4] * 12, window=3)
    places = list(order.iterate_epoch(0))
    windows = [{p.shard for p in places[i : i + 12]} for i in range(0, 48, 12)]
    assert [len(window) for window in windows] == [3, 3, 3, 3]


def test_an_order_of_no_images_ends():
    assert list(make_order([0, 0]).iterate_samples()) == []


def test_generators_are_keyed_by_values():
    draw = make_generator(1, 2, "a").random()
    assert draw == make_generator(1, 2, "a").random()
    assert draw != make_generator(12, "a").random()
