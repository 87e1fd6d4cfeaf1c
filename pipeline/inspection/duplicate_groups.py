"""Groups of images that are the same, and the list of images to leave out because of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection.near_duplicates import NearPairs


@dataclass(frozen=True)
class DuplicateGroups:
    """Images in groups: those of a pair are in one group, and so are those of two pairs that share one."""

    images: NDArray[np.int64]
    """`(M,)` numbers of the images that have a duplicate, in order."""
    group: NDArray[np.int64]
    """`(M,)` the lowest number in the image's group."""

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(np.unique(self.group))


def group_duplicates(pairs: NearPairs) -> DuplicateGroups:
    """The connected components of the pairs."""
    images, positions = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    parent = list(range(len(images)))

    def find_root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in positions.reshape(2, -1).T.tolist():
        roots = sorted((find_root(first), find_root(second)))
        parent[roots[1]] = roots[0]
    lowest = np.array([find_root(node) for node in range(len(images))], np.int64)
    return DuplicateGroups(images, images[lowest])


@dataclass(frozen=True)
class ExclusionRow:
    """One image to leave out, and the image that it repeats."""

    image: int
    """By its number over all splits."""
    reason: str
    """`leak`: another split has the image; `duplicate`: its own split has it before."""
    other: int
    """The first image of the group in another split, or in its own."""


def list_exclusions(groups: DuplicateGroups, split_of: NDArray[np.integer]) -> list[ExclusionRow]:
    """Which images to leave out.

    An image whose group reaches into another split is a leak, in each of the splits: a training leaves out
    its side, an analysis the other. Of duplicates within one split, all but the first are left out.

    Args:
        groups: the duplicates.
        split_of: the split of every image, by number.
    """
    rows = []
    order = np.lexsort((groups.images, groups.group))
    images, labels = groups.images[order], groups.group[order]
    for members in np.split(images, np.flatnonzero(np.diff(labels)) + 1) if len(images) else []:
        rows += _list_group(members.tolist(), [int(split_of[number]) for number in members])
    return sorted(rows, key=lambda row: row.image)


def _list_group(members: Sequence[int], splits: Sequence[int]) -> list[ExclusionRow]:
    rows = []
    first_of_split: dict[int, int] = {}
    for number, split in zip(members, splits, strict=True):
        first_of_split.setdefault(split, number)
    for number, split in zip(members, splits, strict=True):
        elsewhere = [first for other, first in first_of_split.items() if other != split]
        if elsewhere:
            rows.append(ExclusionRow(number, "leak", min(elsewhere)))
        elif number != first_of_split[split]:
            rows.append(ExclusionRow(number, "duplicate", first_of_split[split]))
    return rows
