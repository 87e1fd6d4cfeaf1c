"""Whether an image_id occurs twice in a manifest of any size, told from 8 bytes per image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from pipeline import storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest


class UniqueIds:
    """Python's hashes of the ids seen: equal ids have equal ones, and what looks equal is read again."""

    def __init__(self, total: int) -> None:
        """Make room for `total` ids."""
        self._hashes = np.empty(total, np.int64)
        self._count = 0

    def add(self, image_ids: Iterable[str]) -> None:
        """The next ids of the manifest, in its order."""
        hashes = np.fromiter(map(hash, image_ids), np.int64)
        self._hashes[self._count : self._count + len(hashes)] = hashes
        self._count += len(hashes)

    def check(self, manifest: Manifest) -> None:
        """Tell whether an id occurred twice; the manifest is read again only where hashes coincide.

        Raises:
            UnreadableDataset: an id stands in two rows; the message names it and the rows.
        """
        seen = self._hashes[: self._count]
        seen.sort()
        twice = set(seen[1:][seen[1:] == seen[:-1]].tolist())
        if not twice:
            return
        first_rows: dict[str, int] = {}
        for row, image_id in enumerate(self._ids(manifest)):
            if hash(image_id) in twice and (first := first_rows.setdefault(image_id, row)) < row:
                raise UnreadableDataset(
                    f"{storage.shown(manifest.uri)}: image_id {image_id!r} occurs twice, "
                    f"in rows {first} and {row}"
                )

    def _ids(self, manifest: Manifest) -> Iterator[str]:
        batches = manifest.batches(["image_id"], self._count)
        ids = (i for batch in batches for i in batch.column("image_id").to_pylist())
        return islice(ids, self._count)
