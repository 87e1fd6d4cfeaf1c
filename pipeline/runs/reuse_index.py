"""Finds the rows of an earlier output by its images' keys, or by their positions, in little memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import uris
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.image_keys import read_image_keys
from pipeline.manifests import Manifest
from pipeline.shards import Parts, Shard

log = logging.getLogger(__name__)

WINDOW = 1024
"""Parts whose keys are requested at a time."""


@dataclass(frozen=True)
class LocatedRows:
    """Where the earlier output has the images of one shard."""

    rows: NDArray[np.int32]
    """`(R,)` rows of the shard."""
    ordinals: NDArray[np.int32]
    """`(R,)` positions of the earlier parts."""
    earlier_rows: NDArray[np.int32]
    """`(R,)` rows of these parts."""


@dataclass(frozen=True)
class KeyIndex:
    """The rows of an earlier output by their keys' first 16 digits; workers compare all digits."""

    hashes: NDArray[np.uint64]
    """`(N,)` rising."""
    ordinals: NDArray[np.int32]
    rows: NDArray[np.int32]

    def locate(self, wanted: NDArray[np.uint64]) -> LocatedRows:
        """Find some keys' rows."""
        if not len(self.hashes):
            empty = np.empty(0, np.int32)
            return LocatedRows(empty, empty, empty)
        place = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        is_there = self.hashes[place] == wanted
        rows = np.flatnonzero(is_there).astype(np.int32)
        return LocatedRows(rows, self.ordinals[place[is_there]], self.rows[place[is_there]])


@dataclass(frozen=True)
class PositionIndex:
    """The rows of an earlier output by the images' positions in the manifest."""

    parts: Parts

    def locate(self, wanted: NDArray[np.uint64]) -> LocatedRows:
        """Find the rows of some positions; those behind the earlier output's last image are left out."""
        positions = wanted.astype(np.int64)
        firsts = np.array([shard.first_row for shard in self.parts.shards])
        counts = np.array([shard.rows for shard in self.parts.shards])
        ordinals = np.searchsorted(firsts, positions, side="right") - 1
        earlier_rows = positions - firsts[ordinals]
        is_there = (ordinals >= 0) & (earlier_rows < counts[ordinals])
        rows = np.flatnonzero(is_there).astype(np.int32)
        return LocatedRows(
            rows, ordinals[is_there].astype(np.int32), earlier_rows[is_there].astype(np.int32)
        )


def _hash_key(key: str) -> int:
    return int(key[:16], 16)


def read_key_hashes(manifest: Manifest, limit: int) -> Iterator[int]:
    """Stream what `KeyIndex` looks for: the first digits of the keys of a manifest's images."""
    return map(_hash_key, read_image_keys(manifest, limit))


def index_keys(parts: Parts) -> KeyIndex:
    """Read the keys of all images that did not fail; a part that cannot be read is left out."""
    hashes, ordinals, rows = [], [], []
    unreadable: list[str] = []
    with ThreadPoolExecutor(16) as threads:
        for start in range(0, len(parts.shards), WINDOW):
            window = parts.shards[start : start + WINDOW]
            for number, keys in enumerate(threads.map(lambda s: _read_keys(parts, s), window)):
                if isinstance(keys, str):
                    unreadable.append(keys)
                    continue
                row, of_part = keys
                hashes.append(of_part)
                rows.append(row)
                ordinals.append(np.full(len(row), start + number, np.int32))
    if unreadable:
        log.warning("%d parts are not taken over; the first: %s", len(unreadable), unreadable[0])
    hashes_in_order = np.concatenate([np.empty(0, np.uint64), *hashes])
    order = np.argsort(hashes_in_order, kind="stable")
    return KeyIndex(
        hashes_in_order[order],
        np.concatenate([np.empty(0, np.int32), *ordinals])[order],
        np.concatenate([np.empty(0, np.int32), *rows])[order],
    )


def _read_keys(parts: Parts, shard: Shard) -> tuple[NDArray[np.int32], NDArray[np.uint64]] | str:
    """The rows of a part whose image did not fail and their keys, or why it cannot be read."""
    try:
        table = parts.read(shard, ["status", "image_key"])
    except (UnreadableDataset, MissingObject) as error:
        return str(error)
    usable = pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["image_key"]))
    rows = np.flatnonzero(usable.to_numpy(zero_copy_only=False)).astype(np.int32)
    keys = table["image_key"].filter(usable).to_pylist()
    try:
        return rows, np.array([_hash_key(key) for key in keys], np.uint64)
    except ValueError:
        return f"{uris.redact_uri(uris.join(parts.uri, shard.part_name))}: an image_key is not hexadecimal"
