"""The order in which pieces are tried."""

from __future__ import annotations

from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.shards import Shard

FIRST, SECOND, THIRD = (Piece(Shard(i, f"{i:024x}", 4 * i, 4)) for i in range(3))


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_piece_whose_wait_is_over_comes_before_fresh_ones() -> None:
    clock = Clock()
    queue = PieceQueue([FIRST, SECOND], clock=clock)
    assert queue.take() == FIRST
    queue.retry(FIRST, wait=2.0)
    assert queue.take() == SECOND
    queue.add_first([THIRD])
    clock.now += 2.0
    assert [queue.take(), queue.take()] == [FIRST, THIRD]
    assert not queue


def test_single_images_come_before_shards_that_were_not_tried() -> None:
    clock = Clock()
    queue = PieceQueue([FIRST, SECOND], clock=clock)
    assert queue.take() == FIRST
    singles = [Piece(FIRST.shard, row) for row in range(3)]
    queue.add_first(singles)
    assert [queue.take() for _ in range(4)] == [*singles, SECOND]


def test_no_piece_is_taken_before_its_wait_is_over() -> None:
    clock = Clock()
    queue = PieceQueue([], clock=clock)
    queue.retry(FIRST, wait=8.0)
    queue.retry(SECOND, wait=2.0)
    assert queue.take() is None
    assert len(queue) == 2
    clock.now += 10.0
    assert [queue.take(), queue.take(), queue.take()] == [SECOND, FIRST, None]


def test_a_dropped_shard_leaves_no_piece() -> None:
    clock = Clock()
    queue = PieceQueue([FIRST, SECOND, Piece(FIRST.shard, 2)], clock=clock)
    queue.retry(Piece(FIRST.shard, 1))
    queue.drop(FIRST.shard)
    assert [queue.take(), queue.take()] == [SECOND, None]
