"""Which split each image goes into: decided by a hash of its group, so that more images change nothing.

A group, such as a patient or a video, is never divided. Its place in [0, 1) is a hash of the seed and its
name, and the splits are stretches of it. To stratify, groups of the same rarest class are put in the order of
their hash and cut by the number of images; images that come later may then move those near a boundary, unless
an earlier split is kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidConfiguration

_SLACK = 1e-6


def check_fractions(fractions: Sequence[float]) -> None:
    """Check that there are at least two fractions above 0, and that they add up to 1.

    Raises:
        InvalidConfiguration: they do not.
    """
    shown = " ".join(f"{fraction:g}" for fraction in fractions)
    if len(fractions) < 2:
        raise InvalidConfiguration(f"--fractions {shown}: expected two or more, such as 0.8 0.2")
    if not all(0 < fraction < 1 for fraction in fractions):
        raise InvalidConfiguration(f"--fractions {shown}: each must be above 0 and below 1")
    if abs(sum(fractions) - 1) > _SLACK:
        raise InvalidConfiguration(f"--fractions {shown} add up to {sum(fractions):g}, expected 1")


def hash_group(seed: int, group: str) -> float:
    """The place of a group, in [0, 1): the same in every process and for ever."""
    data = f"{seed}/{group}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=7).digest(), "big") / 2**56


def assign_by_hash(groups: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, int]:
    """The split of each group, by its hash alone."""
    ends = np.cumsum(fractions)[:-1]
    return {
        group: int(np.searchsorted(ends, hash_group(seed, group), side="right"))
        for group in dict.fromkeys(groups)
    }


def assign_stratified(
    groups: Sequence[str],
    labels: Sequence[Sequence[str]],
    fractions: Sequence[float],
    seed: int,
    kept: Mapping[str, int],
) -> dict[str, int]:
    """The split of each group, so that every split has its fraction of each class's images.

    Args:
        groups: `N` the group of each image.
        labels: `N` the classes that each image shows.
        fractions: of the images, by split.
        seed: of the order.
        kept: groups whose split is decided already; it counts towards the fractions.
    """
    images = Counter(groups)
    counts = Counter(label for of_image in labels for label in set(of_image))
    shown: dict[str, set[str]] = defaultdict(set)
    for group, of_image in zip(groups, labels, strict=True):
        shown[group].update(of_image)
    strata: dict[str, list[str]] = defaultdict(list)
    for group in images:
        rarest = min(shown[group], key=lambda label: (counts[label], label), default="")
        strata[rarest].append(group)
    in_order = [
        sorted(strata[stratum], key=lambda group: (hash_group(seed, group), group))
        for stratum in sorted(strata, key=lambda label: (counts[label], label))
    ]
    if kept:
        return _fill_up(in_order, images, fractions, kept)
    assigned: dict[str, int] = {}
    for members in in_order:
        assigned.update(_cut(members, images, fractions))
    return assigned


def _cut(
    members: Sequence[str], images: Mapping[str, int], fractions: Sequence[float]
) -> dict[str, int]:
    """Divide the groups of a stratum, in the order of their hash, by the number of their images.

    If more groups come, only those near a boundary change their split.
    """
    sizes = np.array([images[group] for group in members], np.float64)
    middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    places = np.searchsorted(np.cumsum(fractions)[:-1], middles, side="right")
    return dict(zip(members, places.tolist(), strict=True))


def _fill_up(
    strata: Sequence[Sequence[str]],
    images: Mapping[str, int],
    fractions: Sequence[float],
    kept: Mapping[str, int],
) -> dict[str, int]:
    """Put each group that is not kept into the split that lacks most images, in its stratum and overall."""
    assigned: dict[str, int] = {}
    overall = _Shares(fractions)
    for members in strata:
        of_stratum = _Shares(fractions)
        for group in sorted(members, key=lambda group: group not in kept):  # those first
            overall.expect(images[group])
            of_stratum.expect(images[group])
            lacking = overall.lacking + of_stratum.lacking
            split = kept.get(group, int(np.argmax(lacking)))
            assigned[group] = split
            overall.have[split] += images[group]
            of_stratum.have[split] += images[group]
    return assigned


class _Shares:
    """How many images each split has, and how many its fraction asks for."""

    def __init__(self, fractions: Sequence[float]) -> None:
        self.have = np.zeros(len(fractions))
        self._fractions = np.array(fractions)
        self._total = 0

    def expect(self, images: int) -> None:
        self._total += images

    @property
    def lacking(self) -> NDArray[np.float64]:
        return self._fractions * self._total - self.have


def spread(groups: Sequence[str], assigned: Mapping[str, int]) -> NDArray[np.int64]:
    """The split of each image, `(N,)`."""
    return np.array([assigned[group] for group in groups], np.int64)
