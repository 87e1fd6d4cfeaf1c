"""Writes a manifest: one Parquet file, or a folder that holds several of about a million rows each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import image_members, schema, storage, uris
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.imaging import AS_STORED, Decoding
from pipeline.manifest_files import FILES_KEY, FIRST_NAME, build_name, is_later_name
from pipeline.manifests import ROW_GROUP, AnnotatedObject, ManifestRow
from pipeline.seen_ids import SeenIds

FILE_ROWS = 488 * ROW_GROUP
"""Rows of a file in a folder: about a million, in whole row groups."""


@dataclass(frozen=True)
class ManifestContents:
    """What a manifest says of all its rows."""

    classes: Sequence[str] | None
    """The labels in the order of their numbers; None for images without annotations."""
    category_ids: Sequence[int] | None = None
    """COCO's ids of these classes."""
    decoding: Decoding = AS_STORED
    """How jobs decode the images; the rows' sizes and boxes refer to its orientation."""
    federated: bool = False
    """Also write the columns of `schema.FEDERATED`."""
    has_members: bool = False
    """Also write the columns of `schema.MEMBERS`, because images lie inside other files."""

    def build_schema(self) -> pa.Schema:
        """The schema of each file.

        Raises:
            UnreadableDataset: a class occurs twice.
        """
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise UnreadableDataset(f"the classes name one twice: {', '.join(self.classes):.200}")
        metadata: dict[str, Any] = {}
        if self.classes is not None:
            metadata["classes"] = list(self.classes)
        if self.category_ids is not None:
            metadata["category_ids"] = list(self.category_ids)
        if self.decoding != AS_STORED:
            metadata |= asdict(self.decoding)
        if self.has_members:
            metadata[schema.VERSION_KEY] = schema.MEMBERS_VERSION
        columns = [
            *schema.MANIFEST,
            *(schema.FEDERATED if self.federated else ()),
            *(schema.MEMBERS if self.has_members else ()),
        ]
        return schema.add_metadata(pa.schema(columns), metadata)


def write_manifest(
    uri: str,
    rows: Iterable[ManifestRow],
    classes: Sequence[str] | None,
    category_ids: Sequence[int] | None = None,
    decoding: Decoding = AS_STORED,
    *,
    federated: bool = False,
    has_members: bool = False,
) -> int:
    """Write rows as a manifest and return their number; arguments as for `ManifestContents`.

    Args:
        uri: see `open_manifest_writer`.
        rows: the images; an error that they raise leaves an earlier manifest as it was.
        classes: the labels in the order of their numbers; None for images without annotations.
        category_ids: COCO's ids of these classes.
        decoding: how jobs decode the images.
        federated: also write the columns of `schema.FEDERATED`.
        has_members: also write the columns of `schema.MEMBERS`.

    Raises:
        UnreadableDataset: an image_id or a class occurs twice, a label is not among `classes`, or there are
            no rows.
        InvalidConfiguration: as for `open_manifest_writer`.
    """
    contents = ManifestContents(classes, category_ids, decoding, federated, has_members)
    with open_manifest_writer(uri, contents) as writer:
        for row in rows:
            writer.add(row)
    return writer.rows


@contextlib.contextmanager
def open_manifest_writer(
    uri: str, contents: ManifestContents, file_rows: int = FILE_ROWS
) -> Iterator[ManifestWriter]:
    """A writer of rows; if the block ends without an error, its files are put, each whole.

    Args:
        uri: a file, if it ends in .parquet. Otherwise a folder, in which up to `file_rows` rows become
            manifest.parquet, and more become manifest.parquet, manifest_00001.parquet, and so on.
        contents: what the manifest says of all rows.
        file_rows: rows of a file in a folder.

    Files of an earlier manifest in the folder are replaced. If the process is killed while it puts several
    files, `open_manifest` rejects the folder until they are written again.

    Raises:
        UnreadableDataset: an image_id or a class occurs twice, a label is not among the classes, or there
            are no rows.
        InvalidConfiguration: several files are needed, and the folder holds other Parquet files, which
            would count as part of the manifest.
    """
    with contextlib.ExitStack() as files:
        writer = ManifestWriter(files, uri, contents, file_rows)
        yield writer
        writer.finish()


class ManifestWriter:
    """Takes rows one at a time, and begins a file when one is full; see `open_manifest_writer`."""

    def __init__(
        self, files: contextlib.ExitStack, uri: str, contents: ManifestContents, file_rows: int
    ) -> None:
        self.rows = 0
        """Rows so far."""
        self._files = files
        self._folder = None if uri.endswith(".parquet") else uri
        self._file = uri
        self._file_rows = file_rows
        self._schema = contents.build_schema()
        self._classes = None if contents.classes is None else frozenset(contents.classes)
        self._seen = SeenIds()
        self._chunk: list[ManifestRow] = []
        self._writers: list[pq.ParquetWriter] = []

    @property
    def location(self) -> str:
        """What to pass as --manifest: the file, or the folder if it holds several."""
        if self._folder is None:
            return self._file
        is_one = len(self._writers) <= 1
        return uris.join(self._folder, FIRST_NAME) if is_one else self._folder

    def add(self, row: ManifestRow) -> None:
        """Add the next row.

        Raises:
            UnreadableDataset: its image_id has occurred before (found within 2048 rows), or it has an object
                of another class.
        """
        if self._classes is not None:
            _check_labels(row, self._classes)
        self._chunk.append(row)
        self.rows += 1
        if len(self._chunk) == ROW_GROUP:
            self._write_chunk()

    def finish(self) -> None:
        """Write what is left, and remove the files of an earlier manifest that has more of them."""
        if not self.rows:
            raise UnreadableDataset("the dataset holds no images, so no manifest was written")
        if self._chunk:
            self._write_chunk()
        for index, writer in enumerate(self._writers):
            if len(self._writers) > 1:
                place = {"index": index, "count": len(self._writers), "rows": self.rows}
                writer.add_key_value_metadata({FILES_KEY: json.dumps(place)})
            writer.close()
        if self._folder is not None:
            for name in storage.list_names(self._folder):
                if is_later_name(name):
                    storage.remove(uris.join(self._folder, name))

    def _write_chunk(self) -> None:
        repeated = self._seen.add([row.image_id for row in self._chunk])
        if repeated is not None:
            raise _describe_repeated(self._chunk[repeated])
        if not self._writers or self._is_full():
            self._begin_file()
        table = _build_table(self._chunk, self._schema)
        self._writers[-1].write_table(table, row_group_size=ROW_GROUP)
        self._chunk = []

    def _is_full(self) -> bool:
        if self._folder is None:
            return False
        return self.rows - len(self._chunk) >= len(self._writers) * self._file_rows

    def _begin_file(self) -> None:
        uri = self._file
        if self._folder is not None:
            if len(self._writers) == 1:
                _check_alone(self._folder)
            uri = uris.join(self._folder, build_name(len(self._writers)))
        scratch: Path = self._files.enter_context(storage.write_whole(uri))
        writer = pq.ParquetWriter(scratch, self._schema, compression="zstd")
        self._files.callback(writer.close)  # closed already unless there was an error
        self._writers.append(writer)


def _check_alone(folder: str) -> None:
    """Reject a folder with Parquet files that are not of a manifest that `prepare` wrote."""
    for name in storage.list_names(folder):
        if name.endswith(".parquet") and name != FIRST_NAME and not is_later_name(name):
            raise InvalidConfiguration(
                f"{uris.redact_uri(folder)} holds {name}, and the manifest needs several files, which are "
                "read as one folder: choose a folder without other Parquet files, or a single file "
                f"({uris.redact_uri(uris.join(folder, FIRST_NAME))}) as --output"
            )


def _describe_repeated(row: ManifestRow) -> UnreadableDataset:
    remedy = "" if row.member is None else ": pass --prefix-ids if files number their images alike"
    return UnreadableDataset(
        f"image_id {row.image_id!r} occurs twice ({uris.redact_uri(row.uri)}){remedy}"
    )


def _check_labels(row: ManifestRow, classes: frozenset[str]) -> None:
    for item in row.objects or ():
        if item.label not in classes:
            raise UnreadableDataset(
                f"image {row.image_id!r} has an object of class {item.label!r}, "
                f"which is not among the classes {', '.join(sorted(classes))}"
            )


def _build_table(rows: Sequence[ManifestRow], target: pa.Schema) -> pa.Table:
    return pa.table(
        {
            "image_id": [row.image_id for row in rows],
            "uri": [row.uri for row in rows],
            "width": pa.array([row.width for row in rows], pa.int32()),
            "height": pa.array([row.height for row in rows], pa.int32()),
            "objects": _build_objects([row.objects for row in rows]),
            **{
                field.name: pa.array([getattr(row, field.name) for row in rows], field.type)
                for field in schema.FEDERATED
                if field.name in target.names
            },
            **(
                image_members.build_columns([row.member for row in rows])
                if schema.MEMBERS[0].name in target.names
                else {}
            ),
        },
        schema=target,
    )


def _build_objects(objects: Sequence[Sequence[AnnotatedObject] | None]) -> pa.ListArray:
    """A column of objects, built field by field: three times as fast as from a dict for each object."""
    flat = [item for items in objects for item in items or ()]
    fields = list(schema.OBJECT)
    values = pa.StructArray.from_arrays(
        [pa.array([getattr(item, field.name) for item in flat], field.type) for field in fields],
        fields=fields,
    )
    offsets = np.cumsum([0, *(len(items or ()) for items in objects)], dtype=np.int32)
    is_null = pa.array([items is None for items in objects])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=is_null)
