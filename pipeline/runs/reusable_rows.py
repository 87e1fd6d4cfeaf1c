"""Rows of an earlier output that a run takes over for images that did not change: read, checked, merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import (
    AccessDenied,
    MissingObject,
    StorageError,
    UnreadableDataset,
)
from pipeline.image_reader import check_container, read_image
from pipeline.object_facts import read_object_facts
from pipeline.runs.encoded_image import ImageContent, ListedImage, identify_content
from pipeline.runs.options import ReuseCheck
from pipeline.runs.report import Report
from pipeline.shards import Parts, Shard
from pipeline.stated_sizes import sizes_agree

T = TypeVar("T")

_IDENTITY_COLUMNS = ("image_id", "image_key", "status", "width", "height", "num_proposals")
THREADS = 16
"""Images that are looked up at a time; each thread mostly waits for the store."""


@dataclass(frozen=True)
class ReusedRows:
    """Rows of an earlier output that hold for images of a piece."""

    table: pa.Table
    """One row per image, in the order of `rows`."""
    rows: NDArray[np.int64]
    """`(R,)` the images' positions in the piece, rising."""

    def leave_out(self, images: Sequence[T]) -> list[T]:
        """The images of the piece that these rows are not about, in order."""
        return [images[row] for row in self.find_others(len(images))]

    def find_others(self, images: int) -> NDArray[np.int64]:
        """The positions in a piece of `images` images that these rows are not about, rising."""
        return np.setdiff1d(np.arange(images), self.rows, assume_unique=True)

    def count_elements(self, column: str) -> int:
        """How many elements the lists of a column have together."""
        return int(pc.sum(pc.list_value_length(self.table[column])).as_py() or 0)

    def merge(self, computed: pa.Table) -> pa.Table:
        """The rows of the whole piece, in its order, with the columns and metadata of the run's parts.

        Args:
            computed: the rows of the images that `leave_out` returns, perhaps none.
        """
        target = _add_image_facts(computed.schema)
        others = self.find_others(len(self.rows) + len(computed))
        order = np.argsort(np.concatenate([self.rows, others]))
        table = pa.concat_tables([_align(self.table, target), _align(computed, target)])
        return table.combine_chunks().take(pa.array(order))


def _add_image_facts(target: pa.Schema) -> pa.Schema:
    """The schema with the columns `schema.IMAGE_FACTS`, which a table without images lacks."""
    missing = [field for field in schema.IMAGE_FACTS if field.name not in target.names]
    return pa.schema([*target, *missing], target.metadata)


def _align(table: pa.Table, target: pa.Schema) -> pa.Table:
    """The columns of `target`; those that the table lacks are null."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in target
    ]
    return pa.table(columns, schema=target)


@dataclass(frozen=True)
class ReusableRows:
    """Where an earlier output has rows for images of a piece: all that a worker needs to take them over."""

    uri: str
    fingerprint: str | None
    """Of the run that wrote them."""
    check: ReuseCheck
    has_keys: bool
    """Whether the rows have image keys. If not, the images are known to be the manifest's first ones."""
    spans: tuple[tuple[Shard, NDArray[np.int32], NDArray[np.int32]], ...]
    """Each part with the rows to take there, and the images' positions in the piece."""

    def take(
        self,
        images: Sequence[ListedImage],
        report: Report,
        proposal_counts: Sequence[int | None] | None = None,
    ) -> ReusedRows | None:
        """Read the rows and keep those that still hold.

        A part that cannot be read any more costs time, not rows: its images are computed.

        Args:
            images: those of the piece.
            report: its counts `reused` and `not_reused` are raised: images whose row is taken over, and those
                that have a row there which does not hold any more.
            proposal_counts: for each image the number of its stored proposals that are used, or None if they
                failed; only for detections over stored proposals.

        Raises:
            StorageError: a store fails.
        """
        tables, positions = [], []
        for table, rows in self._read_candidates(images, proposal_counts):
            stays = self._find_unchanged([images[row] for row in rows], table)
            tables.append(table.filter(pa.array(stays)))
            positions.append(rows[stays])
        listed = sum(len(rows) for _, _, rows in self.spans)
        position = np.concatenate([np.empty(0, np.int64), *positions])
        report.counts["reused"] += len(position)
        if listed > len(position):
            report.counts["not_reused"] += listed - len(position)
        if not len(position):
            return None
        order = np.argsort(position)
        table = pa.concat_tables(tables, promote_options="default").combine_chunks()
        return ReusedRows(table.take(pa.array(order)), position[order])

    def _read_candidates(
        self, images: Sequence[ListedImage], proposal_counts: Sequence[int | None] | None
    ) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
        """Yield the rows of each part that are about these images, and the images' positions."""
        for shard, earlier_rows, rows in self.spans:
            try:
                part = Parts(self.uri, (shard,), self.fingerprint).read(shard)
            except (UnreadableDataset, MissingObject):
                continue
            table = part.take(pa.array(earlier_rows))
            names = [name for name in _IDENTITY_COLUMNS if name in table.column_names]
            is_same = np.array(
                [
                    self._is_about(values, images[row])
                    and (
                        proposal_counts is None
                        or values.get("num_proposals") == proposal_counts[row]
                    )
                    for values, row in zip(table.select(names).to_pylist(), rows, strict=True)
                ],
                np.bool_,
            )
            yield table.filter(pa.array(is_same)), rows[is_same].astype(np.int64)

    def _is_about(self, values: Mapping[str, Any], image: ListedImage) -> bool:
        """Whether a row is a success about this image, which its boxes fit."""
        if values["status"] != "ok":
            return False
        size = (values["width"], values["height"])
        stated = image.stated_size
        if stated is not None and None not in size and not sizes_agree(stated, size):
            return False
        if self.has_keys:
            return values.get("image_key") == image.key
        return bool(values["image_id"] == image.image_id)

    def _find_unchanged(self, images: Sequence[ListedImage], table: pa.Table) -> NDArray[np.bool_]:
        """Which images still are what their row was computed from, `(R,)`."""
        if self.check == "name" or not self.has_keys:
            return np.ones(len(images), np.bool_)
        contents = [
            None if size is None or md5 is None else ImageContent(size, md5)
            for size, md5 in zip(
                table["image_bytes"].to_pylist(), table["image_md5"].to_pylist(), strict=True
            )
        ]
        with ThreadPoolExecutor(THREADS) as threads:
            unchanged = list(threads.map(self._is_unchanged, images, contents))
        return np.array(unchanged, np.bool_)

    def _is_unchanged(self, image: ListedImage, content: ImageContent | None) -> bool:
        """Whether an image has the bytes that its row was computed from.

        Raises:
            StorageError: its store fails.
        """
        if content is None:
            return False
        try:
            if self.check == "content":
                return _has_content(image, content)
            if image.member is not None:  # its key holds the etag of the file that it lies in
                check_container(image.uri, image.member.etag)
                return True
            return _has_stated_content(image, content)
        except (MissingObject, AccessDenied, UnreadableDataset):
            return False


def _has_stated_content(image: ListedImage, content: ImageContent) -> bool:
    """Whether the store states an image's size, and its MD5 if it states one; in doubt the image is read."""
    try:
        facts = read_object_facts(image.uri)
    except MissingObject:
        raise
    except StorageError:  # a link that is signed for reading may not be looked up
        return _has_content(image, content)
    if facts.size is None:
        return _has_content(image, content)
    if facts.size != content.size:
        return False
    return facts.md5 in (None, content.md5) or _has_content(image, content)


def _has_content(image: ListedImage, content: ImageContent) -> bool:
    return identify_content(read_image(image.uri, image.member)) == content
