"""CSV: one line per detection, for spreadsheets and anything else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.csv_cells import escape_cell, format_rows
from pipeline.exports.export_format import ReadStream
from pipeline.exports.image_batch import ImageBatch, format_numbers

TABLE_NAME = "detections.csv"
COLUMNS = (
    *("image_id", "uri", "width", "height"),
    *("label", "label_id", "score", "x1", "y1", "x2", "y2"),
)
"""Columns of a flat table of detections, with one row per detection; `label_id` counts from 0."""


@dataclass(frozen=True)
class CsvTable:
    """`detections.csv`; texts that a spreadsheet would run as a formula have an apostrophe in front."""

    classes: tuple[str, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """The lines."""
        return ("lines",)

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """The lines of each image."""
        assert batch.scores is not None
        labels = list(map(escape_cell, self.classes))
        numbers = list(
            zip(
                batch.class_ids.tolist(),
                format_numbers(batch.scores),
                *map(format_numbers, batch.boxes.astype("float32").T),
                strict=True,
            )
        )
        lines = []
        for index in range(len(batch)):
            size = batch.sizes[index] or (None, None)
            start = (escape_cell(batch.image_ids[index]), escape_cell(batch.uris[index]), *size)
            rows = numbers[batch.slice_boxes(index)]
            lines.append(format_rows((*start, labels[row[0]], *row) for row in rows))
        return {"lines": lines}

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        """No image has files of its own."""
        return iter(())

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """The header and all lines."""
        yield TABLE_NAME, chain([format_rows([COLUMNS])], read("lines"))
