"""The output of img2dataset: images in tar files, in folders or in Parquet, and a table of each shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.image_members import Member
from pipeline.imaging import ImageHeader
from pipeline.manifests import ManifestRow
from pipeline.parquet_cells import CellReader
from pipeline.sources.checking import read_side
from pipeline.sources.contained_images import ContainedImage, build_contained_row
from pipeline.sources.dataset import IMAGE_FAULTS, Dataset, ReadImage, stream_groups
from pipeline.sources.listing import list_files
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.scalars import is_absent, read_id
from pipeline.sources.sizes import parse_image_header, settle_size
from pipeline.sources.tally import Tally
from pipeline.sources.tar_index import BLOCK_BYTES, TarIndex, TarMember

_ENDINGS = ("jpg", "png", "webp")
"""The encodings that img2dataset writes; its Parquet files name the column so."""
_COLUMNS = ("key", "status", "error_message", "width", "height")
_SUCCESS = "success"


@dataclass(frozen=True)
class _Shard:
    """One shard: its table, and where its images are."""

    table: str
    tar: str | None
    folder: str | None


@dataclass(frozen=True)
class _Entry:
    """One row of a shard's table."""

    row: int
    key: str
    failure: str | None
    size: tuple[int, int]


def open_img2dataset(root: str, options: SourceOptions = DEFAULT) -> Dataset:
    """All images that img2dataset was asked for, in the order of its shards; `image_id` is its key.

    An image that it could not download has a row too: every run writes a failed row for it, with the reason.
    Each shard `00000` has a table `00000.parquet`, and its images in `00000.tar`, in the folder `00000/`, or
    in the table itself (img2dataset's output formats webdataset, files and parquet).

    Args:
        root: the output folder, in any store.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the folder holds no such tables, or (while streaming) a file is damaged or too many
            images are invalid.
        StorageError: the folder does not exist, or its store cannot be reached.
    """
    shards = _list_shards(root)
    tally = Tally()

    def read(shard: _Shard) -> list[ReadImage | Exception]:
        return _read_shard(shard, options)

    return Dataset(None, None, stream_groups(shards, read, tally, options), tally, has_members=True)


def _list_shards(root: str) -> list[_Shard]:
    listing = list_files(root, hidden=False)
    files = set(listing.files)
    folders = {path.rpartition("/")[0] for path in files}
    shards = []
    for path in listing.files:
        stem = path.removesuffix(".parquet")
        if stem == path or not stem.rpartition("/")[2].isdigit():
            continue
        tar = f"{stem}.tar" if f"{stem}.tar" in files else None
        folder = stem if stem in folders else None
        joined = (None if name is None else uris.join(listing.root, name) for name in (tar, folder))
        shards.append(_Shard(uris.join(listing.root, path), *joined))
    if not shards:
        raise UnreadableDataset(
            f"{uris.redact_uri(listing.root)} holds no table of an img2dataset shard (00000.parquet, ...)"
        )
    return shards


def _read_shard(shard: _Shard, options: SourceOptions) -> list[ReadImage | Exception]:
    entries, encoding = _read_table(shard.table)
    if shard.tar is not None:
        return _read_tar(shard.tar, entries, options)
    if shard.folder is not None:
        return _read_folder(shard.folder, entries, options)
    if encoding is None:
        raise UnreadableDataset(
            f"{uris.redact_uri(shard.table)}: its images are neither in a tar file nor in a folder beside it "
            f"nor in a column {' or '.join(_ENDINGS)}"
        )
    return _read_cells(shard.table, encoding, entries, options)


def _read_table(uri: str) -> tuple[list[_Entry], str | None]:
    """The rows of a shard's table, and its column of images if it has one."""
    where = uris.redact_uri(uri)
    with storage.open_file(uri) as source, schema.report_damage(uri):
        parquet = pq.ParquetFile(source, pre_buffer=False)
        names = parquet.schema_arrow.names
        missing = [name for name in ("key", "status") if name not in names]
        if missing:
            raise UnreadableDataset(
                f"{where} has no column {missing[0]}, so it is no table of img2dataset; it has "
                f"{', '.join(names):.300}"
            )
        present = [name for name in _COLUMNS if name in names]
        table = parquet.read(columns=present, use_threads=False).to_pylist()
    encoding = next((name for name in _ENDINGS if name in names), None)
    return [_read_entry(index, values, where) for index, values in enumerate(table)], encoding


def _read_entry(index: int, values: dict[str, Any], where: str) -> _Entry:
    failure = None
    if values["status"] != _SUCCESS:
        reason = values.get("error_message")
        stated = "" if is_absent(reason) else f": {reason}"
        failure = f"{values['status']}{stated}"[:500]
    size = (read_side(values.get("width")), read_side(values.get("height")))
    return _Entry(index, read_id(values["key"], "key", f"{where}: row {index}"), failure, size)


def _build_failed_row(uri: str, entry: _Entry) -> ReadImage:
    member = Member(failure=entry.failure)
    return ReadImage(ManifestRow(entry.key, uri, None, None, None, member=member))


def _read_tar(
    uri: str, entries: Sequence[_Entry], options: SourceOptions
) -> list[ReadImage | Exception]:
    where, etag = uris.redact_uri(uri), storage.get_etag(uri)
    images: list[ReadImage | Exception] = []
    with storage.open_file(uri, BLOCK_BYTES) as file:
        index = TarIndex(file, where)
        members: dict[str, TarMember] = {}
        for member in index.iterate():
            key, _, ending = member.name.rpartition(".")
            if ending.lower() in _ENDINGS:
                members[key.removeprefix("./")] = member
        for entry in entries:
            if entry.failure is not None:
                images.append(_build_failed_row(uri, entry))
                continue
            stored = members.get(entry.key)
            place = f"{where}: {entry.key}"
            if stored is None:
                reason = f": {index.fault}" if index.fault is not None else ""
                images.append(UnreadableDataset(f"{place} is not in the tar file{reason}"))
                continue
            span = Member(stored.offset, stored.length, stored.checksum, etag=etag)

            def read_header(stored: TarMember = stored, place: str = place) -> ImageHeader:
                return parse_image_header(index.read_span(stored.offset, stored.length), place)

            contained = ContainedImage(
                entry.key, uri, span, place, read_header, stated_size=entry.size
            )
            images.append(_build_row(contained, options))
    return images


def _read_cells(
    uri: str, column: str, entries: Sequence[_Entry], options: SourceOptions
) -> list[ReadImage | Exception]:
    where, etag, cells = uris.redact_uri(uri), storage.get_etag(uri), CellReader()
    images: list[ReadImage | Exception] = []
    for entry in entries:
        if entry.failure is not None:
            images.append(_build_failed_row(uri, entry))
            continue
        place = f"{where}: row {entry.row}"

        def read_header(row: int = entry.row, place: str = place) -> ImageHeader:
            return parse_image_header(cells.read(uri, etag, column, row) or b"", place)

        cell = Member(row=entry.row, image_column=column, etag=etag)
        contained = ContainedImage(entry.key, uri, cell, place, read_header, stated_size=entry.size)
        images.append(_build_row(contained, options))
    return images


def _read_folder(
    folder: str, entries: Sequence[_Entry], options: SourceOptions
) -> list[ReadImage | Exception]:
    names = {
        key: name
        for name in storage.list_names(folder)
        for key, _, ending in [name.rpartition(".")]
        if ending.lower() in _ENDINGS
    }
    images: list[ReadImage | Exception] = []
    for entry in entries:
        if entry.failure is not None:
            images.append(_build_failed_row(folder, entry))
            continue
        place = f"{uris.redact_uri(folder)}: {entry.key}"
        if entry.key not in names:
            images.append(UnreadableDataset(f"{place} is not in the folder"))
            continue
        uri = uris.join(folder, names[entry.key])
        try:
            stated = entry.size if min(entry.size) > 0 else (0, 0)
            settled = settle_size(uri, stated, (), options, place)
            row = ManifestRow(entry.key, uri, settled.width, settled.height, None)
            images.append(ReadImage(row, settled.repairs))
        except IMAGE_FAULTS as error:
            images.append(error)
    return images


def _build_row(image: ContainedImage, options: SourceOptions) -> ReadImage | Exception:
    try:
        return build_contained_row(image, options)
    except IMAGE_FAULTS as error:
        return error
