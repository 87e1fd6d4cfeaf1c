"""The Arrow schemas that the stations exchange, their version, and nested columns from and to numpy."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json

VERSION = 1
"""Version of all schemas below; raise it with any change of a column's name, type or meaning.

Each run's fingerprint and each file's schema metadata hold it. Files from before there were versions have the
columns of version 1."""

MEMBERS_VERSION = 2
"""Version of a manifest with the columns `MEMBERS`: a reader that ignores them would read other bytes."""
VERSION_KEY = "schema_version"

_CORNERS = [pa.field(name, pa.float32()) for name in ("x1", "y1", "x2", "y2")]

OBJECT = pa.struct(
    [
        pa.field("label", pa.string()),
        *_CORNERS,
        pa.field("difficult", pa.bool_()),
        pa.field("crowd", pa.bool_()),
    ]
)
"""One annotated object of an image."""

MANIFEST = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("objects", pa.list_(OBJECT)),
    ]
)
"""One row per image; metadata `classes` (ordered) and, for COCO, `category_ids`."""

FEDERATED = (
    pa.field("negative_labels", pa.list_(pa.string())),
    pa.field("not_exhaustive_labels", pa.list_(pa.string())),
)
"""Optional columns of a manifest whose images are annotated for some classes only (LVIS): the classes that an
image is known not to show, and those of which it may show more than its objects. Of classes that are neither
here nor among the objects, nothing is known."""

MEMBERS = (
    pa.field("offset", pa.int64()),
    pa.field("length", pa.int64()),
    pa.field("header_checksum", pa.int64()),
    pa.field("row", pa.int64()),
    pa.field("image_column", pa.string()),
    pa.field("etag", pa.string()),
    pa.field("failure", pa.string()),
)
"""Optional columns of a manifest whose images lie inside other files (`pipeline/image_members.py`)."""

MANIFEST_COLUMNS = pa.schema([*MANIFEST, *FEDERATED, *MEMBERS])
"""All columns that a manifest may have."""

SHARD_TABLE = pa.schema(
    [
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)
"""The cut of a manifest into shards, in order."""

PROPOSALS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
    ]
)
"""One row per image, boxes best first; metadata `provenance`, `fingerprint`."""

DETECTION = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("label_id", pa.int32()),
        pa.field("score", pa.float32()),
        *_CORNERS,
    ]
)
"""One detected object; `label_id` counts the checkpoint's classes from 0."""

DETECTIONS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("num_proposals", pa.int32()),
        pa.field("detections", pa.list_(DETECTION)),
    ]
)
"""One row per image, best detection first; metadata `classes`, `fingerprint`."""

IMAGE_FACTS = (
    pa.field("image_key", pa.string()),
    pa.field("image_bytes", pa.int64()),
    pa.field("image_md5", pa.string()),
)
"""Optional columns of proposals and detections: which image the row is about, so that a later run may take it
over (`propose --reuse`, `detect --reuse`).

- `image_key`: digest of image_id, uri and decoding (`pipeline/image_keys.py`).
- `image_bytes`, `image_md5`: size and MD5 of the encoded image that was read; null if none was.
"""

SIGNATURES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("hashes", pa.list_(pa.uint64())),
        pa.field("pixels", pa.binary()),
        pa.field("brightness", pa.float32()),
        pa.field("contrast", pa.float32()),
        *IMAGE_FACTS,
    ]
)
"""One row per image of a checked dataset (`inspection.signature`).

- `hashes`: 64-bit perceptual hashes of the image, one for each view.
- `pixels`: a grey copy of 32x32 pixels, row by row.
- `brightness`, `contrast`: mean and standard deviation of the grey pixels, 0 to 255.
"""

AREA_RANGES = ("all", "small", "medium", "large")
"""COCO's ranges of an object's area: any, up to 32², 32² to 96², and from 96² pixels, both ends included."""

MATCHES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("shard", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32()),
        *_CORNERS,
        pa.field("rank", pa.int32()),
        pa.field("object_index", pa.int32()),
        *(pa.field(f"object_{name}", pa.float32()) for name in ("x1", "y1", "x2", "y2")),
        pa.field("iou", pa.float32()),
        pa.field("object_difficult", pa.bool_()),
        pa.field("object_crowd", pa.bool_()),
        pa.field("nearest_index", pa.int32()),
        pa.field("nearest_label", pa.string()),
        pa.field("nearest_iou", pa.float32()),
        *(pa.field(f"true_{name}", pa.int16()) for name in AREA_RANGES),
        *(pa.field(f"ignored_{name}", pa.int16()) for name in AREA_RANGES),
        pa.field("voc", pa.int8()),
        pa.field("error", pa.string()),
        pa.field("error_index", pa.int32()),
        pa.field("covered50", pa.bool_()),
        pa.field("covered70", pa.bool_()),
    ]
)
"""One row per detection, and per object that no detection row stands for; metadata `classes`, `fingerprint`.

The rows follow the manifest. An image's detections come by label, in the order of `classes`, and rank, then
its objects. Every object of an annotated image stands in exactly one row: that of the detection whose
`true_all` has bit 0, or its own. Detections in images without annotations have only the columns up to `rank`.

- `row`: the image's row in the manifest. `shard`: ordinal of the shard of the detections.
- `kind`: `detection`; `missed`, an object that counts and that no detection matches at IoU 0.5 by COCO's
  rule; `ignored`, a difficult object or a crowd.
- `label`: of the detection or of the object.
- `score`, `x1` to `y2`, `rank`: the detection's score and box, and its position by falling score among the
  image's detections of this label, from 0.
- `object_index` and the columns that follow: the object, by its position in the manifest's `objects`, that
  the detection is matched with at IoU 0.5 in the range `all`, ignored ones included; else the object of the
  same label that it overlaps most, those that count before ignored ones; else null. An object's row has the
  object itself. `iou` is measured with it; with a crowd it is the share of the detection's area inside it.
- `nearest_*`: the object of any label, crowds excepted, that the detection overlaps most.
- `true_*`, `ignored_*`: bit t is set if the detection is true, or neither true nor false, by COCO's rule at
  IoU 0.50 + 0.05 t for objects of these areas. Both are 0 from rank 100 on, where COCO does not look.
- `voc`: by the VOC kit's rule at IoU 0.5: 1 true, 0 false, -1 ignored.
- `error`: TIDE's type of a detection that is false at IoU 0.5 in the range `all`: `cls`, `loc`, `both`,
  `dupe`, `bkg`; `miss` for a missed object that no `cls` or `loc` detection explains. `error_index` is the
  object that a `cls` or `loc` detection would match without its error, or that a `dupe` repeats.
- `covered50`, `covered70`: whether a proposal overlaps the row's object by this IoU; null without
  proposals, and in the row of a detection that stands for no object.
"""


@contextlib.contextmanager
def report_damage(uri: str) -> Iterator[None]:
    """Turn Parquet errors of a damaged file into one that names it; used inside `storage.open_file`.

    Raises:
        UnreadableDataset: Arrow cannot read it, or a column is missing or cannot be cast.
    """
    try:
        yield
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise _describe_damage(uri, error) from error
    except OSError as error:
        if type(error) is not OSError or error.errno is not None:
            raise  # a store's error; Arrow raises a plain OSError without a number for a damaged page
        raise _describe_damage(uri, error) from error


def _describe_damage(uri: str, error: Exception) -> UnreadableDataset:
    text = str(error).splitlines()[0]
    return UnreadableDataset(f"{uris.redact_uri(uri)} is not readable Parquet: {text}")


def parse_parquet(data: bytes) -> pa.Table:
    """The table in the bytes of a Parquet file; used inside `report_damage`.

    Reads without Arrow's threads: those of `pyarrow.parquet.read_table` may outlive it, and abort a
    process that ends right after it.
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def add_metadata(schema: pa.Schema, values: Mapping[str, Any]) -> pa.Schema:
    """The schema with its version and each value as JSON under its key, beside the metadata it has."""
    stored = dict(schema.metadata or {})
    stored.update(
        {
            key.encode(): json.dumps(value, sort_keys=True).encode()
            for key, value in {VERSION_KEY: VERSION, **values}.items()
        }
    )
    return schema.with_metadata(stored)


def read_metadata(schema: pa.Schema, key: str) -> Any:
    """The JSON value stored under `key`, or None.

    Raises:
        UnreadableDataset: the value is not JSON.
    """
    raw = (schema.metadata or {}).get(key.encode())
    if raw is None:
        return None
    try:
        return parse_json(raw)
    except InvalidJson as error:
        raise UnreadableDataset(
            f"the schema's metadata {key!r} is not JSON: {raw[:60]!r}"
        ) from error


def read_classes(stored_schema: pa.Schema, uri: str) -> tuple[str, ...] | None:
    """The ordered classes that a file's metadata lists, or None.

    Raises:
        UnreadableDataset: the metadata holds something else, or a name twice; the message names `uri`.
    """
    try:
        names = read_metadata(stored_schema, "classes")
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)}: {error}") from error
    if names is None:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_list or len(set(names)) < len(names):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: the schema's metadata 'classes' is {names!r:.60}, expected a list of "
            "different names"
        )
    return tuple(names)


def check_version(schema: pa.Schema, uri: str, newest: int = VERSION) -> None:
    """Reject a file whose schema is newer than `newest`; a file without a version passes.

    Raises:
        UnreadableDataset: the version is newer, or not a number; the message names `uri`.
    """
    try:
        version = read_metadata(schema, VERSION_KEY)
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)}: {error}") from error
    if version is not None and (type(version) is not int or version > newest):
        raise UnreadableDataset(f"{uris.redact_uri(uri)} {describe_newer_version(version, newest)}")


def describe_newer_version(version: object, newest: int = VERSION) -> str:
    """How messages name a schema version that this release cannot read, and what to do."""
    return (
        f"has schema version {version!r}, and this release reads versions up to {newest}: "
        "use the release that wrote it, or a newer one"
    )


def build_box_column(boxes: Sequence[NDArray[np.floating] | None]) -> pa.ListArray:
    """A column of box lists from one `(N, 4)` array per row; None becomes null."""
    counts = [0 if rows is None else len(rows) for rows in boxes]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    filled = [
        np.asarray(rows, dtype=np.float32).reshape(-1, 4) for rows in boxes if rows is not None
    ]
    flat = np.concatenate(filled) if filled else np.empty((0, 4), np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), pa.float32()), 4)
    missing = pa.array([rows is None for rows in boxes], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=missing)


def split_box_column(column: pa.ChunkedArray | pa.ListArray) -> list[NDArray[np.float32]]:
    """One float32 `(N, 4)` array per row of a column of box lists; null gives `(0, 4)`.

    Args:
        column: of the type in `PROPOSALS` and without null boxes, as `table_checks` returns it.
    """
    assert column.type == PROPOSALS.field("boxes").type, f"boxes are {column.type}"
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # the column of an empty table stays chunked
        return []
    assert column.flatten().null_count == 0, "a null box would shift all boxes behind it"
    flat = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    counts = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    ends = np.cumsum(counts)
    return [
        flat[4 * (end - n) : 4 * end].reshape(-1, 4) for n, end in zip(counts, ends, strict=True)
    ]
