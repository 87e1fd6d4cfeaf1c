"""The image_ids of a manifest that is being written, to find one that comes again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FEWEST_RECENT = 1 << 17
"""Ids that are kept as texts before they are merged into the hashes."""
_LARGEST_SHARE = 8
"""Recent ids are merged when they are an eighth of the others, so that all merges take linear time."""
_SECOND = "\0"
"""Put behind an id for its second hash; no id of a file ends so."""


class SeenIds:
    """The ids so far, of which all but the recent ones are two hashes of 64 bits: 16 bytes per id.

    Python keys its hashes with a secret of the process, so two ids of ten million have both hashes in common
    with a probability of 1e-25.
    """

    def __init__(self) -> None:
        self._recent: set[str] = set()
        self._hashes = np.empty((0, 2), np.int64)  # sorted by the first

    def add(self, image_ids: Sequence[str]) -> int | None:
        """Add ids; return the position of the first one that was there already, or None."""
        is_old = self._find_hashes(image_ids)
        for position, image_id in enumerate(image_ids):
            if is_old[position] or image_id in self._recent:
                return position
            self._recent.add(image_id)
        if len(self._recent) > max(_FEWEST_RECENT, len(self._hashes) // _LARGEST_SHARE):
            self._merge()
        return None

    def _find_hashes(self, image_ids: Sequence[str]) -> NDArray[np.bool_]:
        if not len(self._hashes):
            return np.zeros(len(image_ids), np.bool_)
        hashes = _compute_hashes(image_ids)
        places = np.searchsorted(self._hashes[:, 0], hashes[:, 0])
        places = np.minimum(places, len(self._hashes) - 1)
        return np.asarray((self._hashes[places] == hashes).all(axis=1), np.bool_)

    def _merge(self) -> None:
        hashes = np.concatenate([self._hashes, _compute_hashes(list(self._recent))])
        self._hashes = hashes[np.argsort(hashes[:, 0], kind="stable")]
        self._recent = set()


def _compute_hashes(image_ids: Sequence[str]) -> NDArray[np.int64]:
    first = np.fromiter(map(hash, image_ids), np.int64, len(image_ids))
    second = np.fromiter((hash(i + _SECOND) for i in image_ids), np.int64, len(image_ids))
    return np.stack([first, second], axis=1)
