"""Whether an image_id occurs twice in a manifest of any size, with 8 bytes of memory per image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest


class UniqueIds:
    """Hashes of the ids so far: equal ids have equal hashes, and ids with equal hashes are compared."""

    def __init__(self, total: int) -> None:
        """Make room for `total` ids."""
        self._hashes = np.empty(total, np.int64)
        self._count = 0

    def add(self, image_ids: Iterable[str]) -> None:
        """Add the next ids of the manifest, in its order."""
        hashes = np.fromiter(map(hash, image_ids), np.int64)
        self._hashes[self._count : self._count + len(hashes)] = hashes
        self._count += len(hashes)

    def check(self, manifest: Manifest) -> None:
        """Reject a manifest in which an id occurs twice; it is read again only if two hashes are equal.

        Raises:
            UnreadableDataset: an id is in two rows; the message names it and the rows.
        """
        hashes = self._hashes[: self._count]
        hashes.sort()
        repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        if not repeated:
            return
        first_rows: dict[str, int] = {}
        for row, image_id in enumerate(self._read_ids(manifest)):
            if hash(image_id) not in repeated:
                continue
            first = first_rows.setdefault(image_id, row)
            if first < row:
                raise UnreadableDataset(
                    f"{uris.redact_uri(manifest.uri)}: image_id {image_id!r} occurs twice, "
                    f"in rows {first} and {row}"
                )

    def _read_ids(self, manifest: Manifest) -> Iterator[str]:
        batches = manifest.read_batches(["image_id"], self._count)
        ids = (i for batch in batches for i in batch.column("image_id").to_pylist())
        return islice(ids, self._count)
