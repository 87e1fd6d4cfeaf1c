"""Exact counts and seeded samples of many galleries at once, from batches in any order and grouping.

Each row gets a number that hashes (seed, gallery, image_id, position in the image); a gallery keeps the rows
with the smallest numbers. That is a uniform sample (bottom-k, Cohen and Kaplan, PODC 2007) which depends
neither on how the rows are divided into batches nor on the order of merging.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BUFFERED = 1 << 16
"""Candidates that wait before the smallest of each gallery are selected."""
_PRIORITY_BITS = 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

RowReferences = NDArray[np.int64]
"""`(N, 4)` ordinal of the shard, row in the manifest, position among the image's rows (-1: the image), and 1
if the image is sure to be shown as a whole, so that its thumbnail serves others too."""


@dataclass(frozen=True)
class Sample:
    """What one gallery counts and keeps."""

    total: int
    references: RowReferences
    """`(N, 4)` in the order of the sample: by priority, then by the hash."""


class FamilySampler:
    """Counts and samples the galleries of one family, which are numbered from 0.

    Args:
        family: the name that the hash depends on.
        galleries: number of galleries.
        capacity: rows that a gallery keeps.
        seed: of the sample.
    """

    def __init__(self, family: str, galleries: int, capacity: int, seed: int) -> None:
        self.family = family
        self.capacity = capacity
        self.seed = seed
        self.totals = np.zeros(galleries, np.int64)
        self._bounds = np.full(galleries, np.iinfo(np.uint64).max, np.uint64)
        salt = np.uint64(hash_text(f"{seed}/{family}"))
        self._salts = _mix(np.arange(galleries, dtype=np.uint64) * _GOLDEN + salt)
        self._galleries = [np.empty(0, np.int64)]
        self._numbers = [np.empty(0, np.uint64)]
        self._references = [np.empty((0, 4), np.int64)]
        self._buffered = 0

    def update(
        self,
        galleries: NDArray[np.integer],
        image_hashes: NDArray[np.uint64],
        references: RowReferences,
        priorities: NDArray[np.integer] | None = None,
    ) -> None:
        """Count rows, and keep those that belong to the sample so far.

        Args:
            galleries: `(N,)` the gallery of each row, or -1.
            image_hashes: `(N,)` `hash_text` of the row's image_id.
            references: `(N, 4)`.
            priorities: `(N,)` from 0 to 65535; rows of a smaller one are chosen first.
        """
        is_counted = galleries >= 0
        chosen = galleries[is_counted].astype(np.int64)
        self.totals += np.bincount(chosen, minlength=len(self.totals))
        positions = references[is_counted, 2].astype(np.uint64)
        mixed = _mix(image_hashes[is_counted] ^ self._salts[chosen])
        numbers = _mix(mixed + positions * _GOLDEN)
        if priorities is not None:
            numbers >>= np.uint64(_PRIORITY_BITS)
            numbers |= priorities[is_counted].astype(np.uint64) << np.uint64(64 - _PRIORITY_BITS)
        is_candidate = numbers <= self._bounds[chosen]
        self._add(chosen[is_candidate], numbers[is_candidate], references[is_counted][is_candidate])

    def merge(self, other: FamilySampler) -> None:
        """Add what another sampler of the same family counted and kept; each row must be in one only."""
        self.totals += other.totals
        for galleries, numbers, references in zip(
            other._galleries, other._numbers, other._references, strict=True
        ):
            self._add(galleries, numbers, references)

    def shrink(self) -> None:
        """Drop the candidates that are not in the sample, as before a sampler is sent to be merged."""
        galleries = np.concatenate(self._galleries)
        numbers = np.concatenate(self._numbers)
        references = np.concatenate(self._references)
        # The reference decides between equal numbers, so that no order of arrival does.
        order = np.lexsort((references[:, 2], references[:, 1], numbers, galleries))
        galleries, numbers, references = galleries[order], numbers[order], references[order]
        starts = np.searchsorted(galleries, np.arange(len(self.totals)))
        rank = np.arange(len(galleries)) - starts[galleries]
        is_kept = rank < self.capacity
        is_last = rank == self.capacity - 1
        self._bounds = self._bounds.copy()  # an executor's arrays cannot be changed
        self._bounds[galleries[is_last]] = numbers[is_last]
        self._galleries = [galleries[is_kept]]
        self._numbers = [numbers[is_kept]]
        self._references = [references[is_kept]]
        self._buffered = 0

    def compute(self) -> dict[int, Sample]:
        """Return the count and the sample of every gallery that counts something."""
        self.shrink()
        chosen = np.flatnonzero(self.totals)
        starts, ends = (
            np.searchsorted(self._galleries[0], chosen, side) for side in ("left", "right")
        )
        return {
            int(gallery): Sample(int(self.totals[gallery]), self._references[0][start:end])
            for gallery, start, end in zip(chosen, starts, ends, strict=True)
        }

    def _add(
        self,
        galleries: NDArray[np.int64],
        numbers: NDArray[np.uint64],
        references: RowReferences,
    ) -> None:
        self._galleries.append(galleries)
        self._numbers.append(numbers)
        self._references.append(references)
        self._buffered += len(galleries)
        if self._buffered > _BUFFERED:
            self.shrink()


def hash_text(text: str) -> int:
    """A 64-bit digest of a text, the same in every process."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64's finaliser (Steele et al., OOPSLA 2014): every input bit changes half of the output."""
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed = mixed ^ (mixed >> np.uint64(27))
    mixed = mixed * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
