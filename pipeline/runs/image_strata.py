"""A seeded sample of a run's images, stratified by size: few large images may decide the cost.

The images are sorted by their number of pixels and divided into strata of about equal pixels in all, each of
which gives the same number of images. So an image's chance to be measured grows with its size, as its cost
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Manifest
from pipeline.shards import Shard

MAX_STRATA = 8
PER_STRATUM = 4
"""Images measured per stratum, at least: fewer say little about the spread within it."""

MAX_ROWS = 1_000_000
"""Images that are sorted by size; of more, so many stand for all."""


@dataclass(frozen=True)
class Stratum:
    """Images of about one size, and those of them that are measured."""

    images: int
    """Images in the stratum."""
    sample: tuple[int, ...]
    """Rows of the manifest, in random order."""


def list_rows(shards: Sequence[Shard], seed: int) -> NDArray[np.int64]:
    """The rows of the manifest `(N,)` that shards have, rising; at most `MAX_ROWS`, evenly spread."""
    ends = np.cumsum([shard.rows for shard in shards])
    count = min(MAX_ROWS, int(ends[-1]))
    offset = np.random.default_rng(seed).random()
    positions = np.floor((np.arange(count) + offset) * (ends[-1] / count)).astype(np.int64)
    number = np.searchsorted(ends, positions, side="right")
    first_rows = np.array([shard.first_row for shard in shards])
    begins = ends - [shard.rows for shard in shards]
    return np.asarray(first_rows[number] + positions - begins[number], np.int64)


def read_pixel_counts(manifest: Manifest, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stated pixels `(N,)` of the images in rows `(N,)` of rising order; 0 where no size is stated."""
    counts = [np.zeros(0, np.int64)]
    first = 0
    for batch in manifest.read_batches(["width", "height"], int(rows[-1]) + 1):
        if batch.num_columns < 2:  # the manifest lacks the columns
            return np.zeros(len(rows), np.int64)
        width, height = (
            batch.column(name).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
            for name in ("width", "height")
        )
        begin, end = np.searchsorted(rows, [first, first + len(batch)])
        chosen = rows[begin:end] - first
        counts.append(np.maximum(width[chosen], 0) * np.maximum(height[chosen], 0))
        first += len(batch)
    return np.concatenate(counts)


def stratify(
    pixels: NDArray[np.int64],
    rows: NDArray[np.int64],
    count: int,
    *,
    images: int | None = None,
    seed: int = 0,
) -> list[Stratum]:
    """Divide images into strata by size and draw about `count` of them without replacement.

    Args:
        pixels: of each image `(N,)`; 0 where it is unknown, which counts as the mean of the others.
        rows: the images' rows in the manifest `(N,)`.
        count: images to draw; all are drawn if there are no more.
        images: how many images these N stand for; None if they are all.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    scale = (images or len(rows)) / len(rows)
    is_known = pixels > 0
    mean = pixels[is_known].mean() if is_known.any() else 1.0
    size = np.where(is_known, pixels, mean)
    order = np.lexsort((random.random(len(size)), size))
    middle = np.cumsum(size[order]) - size[order] / 2
    strata = max(1, min(MAX_STRATA, count // PER_STRATUM)) if is_known.any() else 1
    number = np.minimum(middle / size.sum() * strata, strata - 1).astype(np.int64)
    members = [rows[order[number == index]] for index in range(strata)]
    members = [chosen for chosen in members if len(chosen)]
    shares = _share_out(count, [len(chosen) for chosen in members])
    return [
        Stratum(round(scale * len(chosen)), tuple(random.permutation(chosen)[:share].tolist()))
        for chosen, share in zip(members, shares, strict=True)
    ]


def _share_out(count: int, sizes: Sequence[int]) -> list[int]:
    """Equal shares of `count`, except that no stratum gives more images than it has."""
    shares = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        is_open = [index for index, size in enumerate(sizes) if shares[index] < size]
        share = max(1, left // len(is_open))
        for index in is_open:
            more = min(share, sizes[index] - shares[index], left)
            shares[index] += more
            left -= more
    return shares


def interleave(strata: Iterable[Stratum]) -> list[int]:
    """The sampled rows, one of each stratum in turn: wherever measuring ends, all strata have their share."""
    rounds = zip_longest(*(stratum.sample for stratum in strata))
    return [row for turn in rounds for row in turn if row is not None]
