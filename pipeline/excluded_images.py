"""The list of images that a training or an analysis leaves out (`--exclude`), written by `analyze dataset`.

A row names an image by its image_id, and by its key if the list has one: the key also holds the image's
place, so that image `000012` of one manifest is not taken for the `000012` of another. A list of image_ids
alone, as a user writes it, leaves out the images of these ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.image_keys import compute_image_key
from pipeline.image_members import read_members
from pipeline.manifests import Manifest
from pipeline.table_checks import cast_table, require_columns

MOST_BYTES = 1 << 30
_ANY = ""
"""Stands for the key of an image that the list names by its image_id alone."""
_READ = pa.schema(
    [pa.field("image_id", pa.string(), nullable=False), pa.field("image_key", pa.string())]
)


@dataclass(frozen=True)
class ExcludedImages:
    """The images of a list."""

    uri: str
    keys: Mapping[str, frozenset[str]] = field(repr=False)
    """By image_id the keys of the images; an empty key stands for any image of this id."""

    def __len__(self) -> int:
        return sum(map(len, self.keys.values()))

    @property
    def digest(self) -> str:
        """A digest of what the list names, in whatever order; part of the fingerprint of a run."""
        lines = [f"{image_id!r} {sorted(keys)}\n" for image_id, keys in sorted(self.keys.items())]
        return hashlib.sha256("".join(lines).encode("utf-8", "backslashreplace")).hexdigest()

    def find(self, manifest: Manifest, table: pa.Table, first_row: int) -> NDArray[np.bool_]:
        """Which rows of a manifest the list names, `(N,)`.

        Args:
            manifest: the manifest.
            table: some of its rows, with its `image_columns`.
            first_row: the row of the first of them.
        """
        image_ids = table["image_id"].to_pylist()
        is_excluded = np.zeros(len(image_ids), bool)
        rows = [row for row, image_id in enumerate(image_ids) if image_id in self.keys]
        if not rows:
            return is_excluded
        members = read_members(table, manifest.uri, first_row)
        image_uris = table["uri"].to_pylist()
        for row in rows:
            keys = self.keys[image_ids[row]]
            place = (image_ids[row], image_uris[row], members[row])
            is_excluded[row] = _ANY in keys or compute_image_key(*place, manifest.decoding) in keys
        return is_excluded

    def find_rows(self, manifest: Manifest, limit: int | None = None) -> NDArray[np.int64]:
        """The numbers of the rows among a manifest's first `limit` that the list names, in order."""
        rows = [np.empty(0, np.int64)]
        for first, table in _read_tables(manifest, limit):
            rows.append(first + np.flatnonzero(self.find(manifest, table, first)))
        return np.concatenate(rows)


def _read_tables(manifest: Manifest, limit: int | None) -> Iterator[tuple[int, pa.Table]]:
    first = 0
    for batch in manifest.read_batches(list(manifest.image_columns), limit):
        yield first, pa.Table.from_batches([batch])
        first += len(batch)


def read_excluded_images(uri: str) -> ExcludedImages:
    """Read a list of images.

    Args:
        uri: a Parquet file with a column image_id and maybe image_key; other columns say why.

    Raises:
        UnreadableDataset: it is no Parquet file, has no column image_id, or an image_id is null.
        StorageError: it does not exist or cannot be read.
    """
    data = storage.read(uris.make_absolute(uri), MOST_BYTES)
    with schema.report_damage(uri):
        table = schema.parse_parquet(data)
    table = cast_table(require_columns(table, ["image_id"], uri), _READ, uri)
    image_ids = table["image_id"].to_pylist()
    if "image_key" in table.column_names:
        image_keys = table["image_key"].to_pylist()
    else:
        image_keys = [None] * len(image_ids)
    keys: dict[str, set[str]] = {}
    for image_id, key in zip(image_ids, image_keys, strict=True):
        if key == _ANY:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: image {image_id!r:.200} has an empty key"
            )
        keys.setdefault(image_id, set()).add(key or _ANY)
    return ExcludedImages(uri, {image_id: frozenset(values) for image_id, values in keys.items()})
