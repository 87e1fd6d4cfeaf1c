"""The plan of samples: which image comes when, decided by (seed, epoch) alone.

Per epoch the shards are permuted, and the images of each window of shards are shuffled together, so
a reader needs the slices of few shards at a time. Epochs follow each other without a gap; worker r of W
takes every W-th sample. A position in the plan is one number, the samples taken so far, from which it
goes on exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 8
"""Shards that are shuffled together: with 256 images a shard, 2048 images."""


def generator(*key: int | str) -> np.random.Generator:
    """A generator keyed by values, not by who asks: equal keys draw equal numbers anywhere."""
    told = "\x1f".join(str(part) for part in key).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(told).digest()[:16]))


@dataclass(frozen=True)
class Place:
    """Where an image lies: dataset, shard of its proposals, row in the shard."""

    source: int
    shard: int
    row: int


@dataclass(frozen=True)
class Planned:
    """One sample of the plan."""

    number: int
    """Counted from the start of training over all workers."""
    epoch: int
    place: Place


@dataclass(frozen=True)
class ShardRows:
    """The rows of one shard that are trained on."""

    source: int
    shard: int
    rows: NDArray[np.int32]


class Plan:
    """The order of the images in every epoch."""

    def __init__(self, shards: Sequence[ShardRows], seed: int, window: int = WINDOW) -> None:
        self._shards = shards
        self._seed = seed
        self._window = window
        self.images = sum(len(shard.rows) for shard in shards)
        """Images per epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Place]:
        """The places of an epoch in order, from the `start`-th on."""
        order = generator(self._seed, epoch, "shards").permutation(len(self._shards))
        skip = start
        for first in range(0, len(order), self._window):
            chosen = [self._shards[i] for i in order[first : first + self._window]]
            count = sum(len(shard.rows) for shard in chosen)
            if skip >= count:
                skip -= count
                continue
            shuffled = generator(self._seed, epoch, "window", first).permutation(count)
            ends = np.cumsum([len(shard.rows) for shard in chosen])
            for index in shuffled[skip:]:
                which = int(np.searchsorted(ends, index, side="right"))
                shard = chosen[which]
                row = shard.rows[index - ends[which]]  # counted from the shard's end
                yield Place(shard.source, shard.shard, int(row))
            skip = 0

    def samples(self, start: int = 0, rank: int = 0, workers: int = 1) -> Iterator[Planned]:
        """The endless stream of one worker, from the `start`-th sample over all workers on.

        Args:
            start: samples that all workers together have taken.
            rank: this worker.
            workers: how many there are.
        """
        if not self.images:
            return
        number = start
        while True:
            epoch, within = divmod(number, self.images)
            for place in self.epoch(epoch, within):
                if number % workers == rank:
                    yield Planned(number, epoch, place)
                number += 1
