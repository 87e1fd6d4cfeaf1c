"""The order of samples: which image comes when, decided by (seed, epoch) alone.

Each epoch permutes the shards and shuffles the images of each window of shards together, so a reader
needs few shards at a time. Epochs follow each other without a gap; worker r of W takes every W-th sample.
A position in the order is one number, the samples taken so far, and the order resumes there exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 8
"""Shards that are shuffled together: with 256 images a shard, 2048 images."""


def make_generator(*key: int | str) -> np.random.Generator:
    """A generator keyed by values alone: equal keys draw equal numbers on any worker."""
    text = "\x1f".join(str(part) for part in key).encode()
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:16]))


@dataclass(frozen=True)
class ImageLocation:
    """Where an image is: dataset, shard of its proposals, row in the shard."""

    dataset: int
    shard: int
    row: int


@dataclass(frozen=True)
class PlannedSample:
    """One sample of the order."""

    number: int
    """Counted from the start of training over all workers."""
    epoch: int
    location: ImageLocation


@dataclass(frozen=True)
class ShardRows:
    """The rows of one shard to train on."""

    dataset: int
    shard: int
    rows: NDArray[np.int32]


class SampleOrder:
    """The order of the images in every epoch."""

    def __init__(self, shards: Sequence[ShardRows], seed: int, window: int = WINDOW) -> None:
        self._shards = shards
        self._seed = seed
        self._window = window
        self.images = sum(len(shard.rows) for shard in shards)
        """Images per epoch."""

    def iterate_epoch(self, epoch: int, start: int = 0) -> Iterator[ImageLocation]:
        """The locations of an epoch in order, from the `start`-th on."""
        order = make_generator(self._seed, epoch, "shards").permutation(len(self._shards))
        skip = start
        for first in range(0, len(order), self._window):
            chosen = [self._shards[i] for i in order[first : first + self._window]]
            count = sum(len(shard.rows) for shard in chosen)
            if skip >= count:
                skip -= count
                continue
            shuffled = make_generator(self._seed, epoch, "window", first).permutation(count)
            ends = np.cumsum([len(shard.rows) for shard in chosen])
            for index in shuffled[skip:]:
                position = int(np.searchsorted(ends, index, side="right"))
                shard = chosen[position]
                row = shard.rows[index - ends[position]]  # counted from the shard's end
                yield ImageLocation(shard.dataset, shard.shard, int(row))
            skip = 0

    def iterate_samples(
        self, start: int = 0, rank: int = 0, workers: int = 1
    ) -> Iterator[PlannedSample]:
        """The endless stream of one worker, from the `start`-th sample of all workers on.

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
            for location in self.iterate_epoch(epoch, within):
                if number % workers == rank:
                    yield PlannedSample(number, epoch, location)
                number += 1
