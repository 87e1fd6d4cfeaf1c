from __future__ import annotations

import pytest

from pipeline.engine.shards import piece_queue
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.shards import Shard

FIRST, SECOND, THIRD = (Piece(Shard(i, f"{i:024x}", 4 * i, 4)) for i in range(3))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(piece_queue, "monotonic", lambda: now[0])
    return now


def test_a_piece_that_waited_long_enough_comes_before_fresh_ones(clock: list[float]) -> None:
    queue = PieceQueue([FIRST, SECOND])
    assert queue.take() == FIRST
    queue.again(FIRST, wait=2.0)
    assert queue.take() == SECOND
    queue.add_first([THIRD])
    clock[0] += 2.0
    assert [queue.take(), queue.take()] == [FIRST, THIRD]
    assert not queue


def test_single_images_come_before_shards_that_were_not_tried(clock: list[float]) -> None:
    queue = PieceQueue([FIRST, SECOND])
    assert queue.take() == FIRST
    singles = [Piece(FIRST.shard, row) for row in range(3)]
    queue.add_first(singles)
    assert [queue.take() for _ in range(4)] == [*singles, SECOND]


def test_nothing_is_handed_out_before_its_time(clock: list[float]) -> None:
    queue = PieceQueue([])
    queue.again(FIRST, wait=8.0)
    queue.again(SECOND, wait=2.0)
    assert queue.take() is None
    assert len(queue) == 2
    clock[0] += 10.0
    assert [queue.take(), queue.take(), queue.take()] == [SECOND, FIRST, None]


def test_a_shard_given_up_is_forgotten(clock: list[float]) -> None:
    queue = PieceQueue([FIRST, SECOND, Piece(FIRST.shard, 2)])
    queue.again(Piece(FIRST.shard, 1))
    queue.drop(FIRST.shard)
    assert [queue.take(), queue.take()] == [SECOND, None]
