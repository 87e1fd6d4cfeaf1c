"""Joins the texts of all shards, in the order of the manifest, into the files of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage, uris
from pipeline.exports.export_format import ExportFormat
from pipeline.exports.shard_export import BOXES, LEFT_OUT

LEFT_OUT_NAME = "left_out.csv"
"""The file of the images that are not in the export."""
PIECE = 1 << 20
"""Bytes that are written at a time."""
ReadTables = Callable[[list[str]], Iterator[pa.Table]]
"""Yields these columns of the tables of all shards, in order."""


@dataclass
class ExportCounts:
    """What an export holds."""

    images: int = 0
    left_out: int = 0
    """Images of the input that are not in it."""
    boxes: int = 0
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of the files that hold the whole dataset, by path."""


def assemble_files(output: str, file_format: ExportFormat, read_tables: ReadTables) -> ExportCounts:
    """Write each file of a format as a stream, put whole, and count what the export holds.

    Raises:
        StorageError: a store fails.
    """

    def read(stream: str) -> Iterator[bytes]:
        for table in read_tables([stream]):
            yield from filter(None, table.column(stream).to_pylist())

    counts = ExportCounts()
    for table in read_tables([BOXES, LEFT_OUT]):
        left_out = pc.sum(pc.greater(pc.binary_length(table.column(LEFT_OUT)), 0)).as_py() or 0
        counts.left_out += left_out
        counts.images += len(table) - left_out
        counts.boxes += pc.sum(table.column(BOXES)).as_py() or 0
    header = b"image_id,stage,error_type,error_message\n"
    side_file = (LEFT_OUT_NAME, chain([header], read(LEFT_OUT)))
    for name, pieces in chain(file_format.assemble(read), [side_file]):
        counts.files[name] = _write(uris.join(output, name), pieces)
    return counts


def _write(uri: str, pieces: Iterable[bytes]) -> int:
    size = 0
    with storage.write_stream(uri) as file:
        buffer = bytearray()
        for piece in pieces:
            buffer += piece
            if len(buffer) >= PIECE:
                size += file.write(buffer)
                buffer = bytearray()
        size += file.write(buffer)
    return size
