"""The pieces that wait for their turn."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from time import monotonic

from pipeline.engine.shards.piece import Piece
from pipeline.shards import Shard


class PieceQueue:
    """Pieces in order, except that a retried one comes first as soon as its wait is over.

    Otherwise a shard would meet a store that is gone for the second time only after all others had met
    it for the first, and the run would end after hours instead of a minute.
    """

    def __init__(self, pieces: Iterable[Piece], *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._fresh = deque(pieces)
        self._retries: list[tuple[float, int, Piece]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._retries)

    def add_first(self, pieces: Sequence[Piece]) -> None:
        """Add pieces in front of all that were not tried yet, in their order.

        A shard that is done image by image is finished before the next one starts. Otherwise the rows
        collected for such shards would grow, and shards that end workers would follow each other without a
        good one between.
        """
        self._fresh.extendleft(reversed(pieces))

    def retry(self, piece: Piece, wait: float = 0.0) -> None:
        """Add a piece to try again after `wait` seconds."""
        heapq.heappush(self._retries, (self._clock() + wait, next(self._number), piece))

    def take(self) -> Piece | None:
        """Remove and return the next piece; None if all that are left have to wait."""
        if self._retries and self._retries[0][0] <= self._clock():
            return heapq.heappop(self._retries)[2]
        return self._fresh.popleft() if self._fresh else None

    def drop(self, shard: Shard) -> None:
        """Remove the pieces of a shard."""
        self._fresh = deque(piece for piece in self._fresh if piece.shard != shard)
        self._retries = [entry for entry in self._retries if entry[2].shard != shard]
        heapq.heapify(self._retries)
