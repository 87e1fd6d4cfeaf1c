"""The pieces of work that wait for their turn."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count
from time import monotonic

from pipeline.engine.shards.piece import Piece
from pipeline.shards import Shard


class PieceQueue:
    """Pieces in order, but one that is tried again comes first as soon as its wait is over.

    Otherwise a shard would meet a store that is gone for the second time only after all others had met
    it for the first, and the run would end after hours instead of a minute.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._fresh = deque(pieces)
        self._again: list[tuple[float, int, Piece]] = []
        self._number = count()

    def __len__(self) -> int:
        return len(self._fresh) + len(self._again)

    def add_first(self, pieces: Sequence[Piece]) -> None:
        """Pieces that come before all that were not tried yet, in their order.

        A shard that is done image by image is finished before the next one is begun: else what gathers
        of it would grow, and shards that end workers would follow each other without one that does not.
        """
        self._fresh.extendleft(reversed(pieces))

    def again(self, piece: Piece, wait: float = 0.0) -> None:
        """A piece to try again after `wait` seconds."""
        heapq.heappush(self._again, (monotonic() + wait, next(self._number), piece))

    def take(self) -> Piece | None:
        """The next piece, or None where all that are left have to wait."""
        if self._again and self._again[0][0] <= monotonic():
            return heapq.heappop(self._again)[2]
        return self._fresh.popleft() if self._fresh else None

    def drop(self, shard: Shard) -> None:
        """Forget the pieces of a shard."""
        self._fresh = deque(piece for piece in self._fresh if piece.shard != shard)
        self._again = [entry for entry in self._again if entry[2].shard != shard]
        heapq.heapify(self._again)
