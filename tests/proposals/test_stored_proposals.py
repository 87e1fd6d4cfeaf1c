"""Stored proposals reach the image that they were made for, or are rejected by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.errors import UnreadableDataset
from pipeline.manifests import open_manifest
from pipeline.proposals.stored_proposals import open_stored_proposals
from tests.outputs import FailedImage, write_annotations, write_proposals

BOXES: dict[str, Any] = {
    "a": [[0, 0, 10, 20], [5, 5, 9, 9]],
    "b": FailedImage(),
    "c": [],
    "d": [[1, 2, 3, 4], [2, 2, 4, 4], [3, 3, 9, 9]],
    "e": [[7, 7, 8, 8]],
}
Lists = list[list[Any] | None]


def read_boxes(folder: Path, change: Callable[[Lists], pa.Array]) -> list[list[list[float]]]:
    """Write proposals, change the column of boxes in every part, and read the images b to e."""
    manifest = write_annotations(str(folder / "m.parquet"), dict.fromkeys(BOXES, ()), ("cat",))
    proposals = write_proposals(str(folder / "p"), manifest, BOXES)
    for path in (folder / "p").glob("part-*"):
        table = pq.read_table(path)
        column = change(table["boxes"].to_pylist())
        place = table.column_names.index("boxes")
        changed = table.set_column(place, "boxes", column)
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
    stored = open_stored_proposals(proposals, open_manifest(manifest))
    table = stored.locate(1, 4).read_table()
    assert table["image_id"].to_pylist() == ["b", "c", "d", "e"]
    return [boxes.tolist() for boxes in schema.split_box_column(table["boxes"])]


FLOAT = pa.float32()
FIXED, VARIABLE = pa.list_(pa.list_(FLOAT, 4)), pa.list_(pa.list_(FLOAT))


@pytest.mark.parametrize(
    "kind", [FIXED, VARIABLE, pa.large_list(pa.list_(pa.float64(), 4))], ids=str
)
def test_boxes_of_any_list_type_stay_with_their_image(tmp_path: Path, kind: pa.DataType) -> None:
    boxes = read_boxes(tmp_path, lambda lists: pa.array(lists, kind))
    assert boxes == [[], BOXES["c"], BOXES["d"], BOXES["e"]]


def change_boxes(
    change: Callable[[int, list[float]], Any], kind: pa.DataType
) -> Callable[[Lists], pa.Array]:
    return lambda lists: pa.array(
        [
            None if boxes is None else [change(index, box) for index, box in enumerate(boxes)]
            for boxes in lists
        ],
        kind,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_boxes(lambda i, box: None if i == 1 else box, FIXED), "image 'a'.*a box is null"),
        (change_boxes(lambda i, box: [*box, 0.5], VARIABLE), "column boxes is"),
        (change_boxes(lambda i, box: box[:3], VARIABLE), "column boxes is"),
        (change_boxes(lambda i, box: box if i else [*box, 9.0], VARIABLE), "column boxes is"),
        (change_boxes(lambda i, box: [float("nan")] * 4, FIXED), r"a box is \(nan"),
        (change_boxes(lambda i, box: box[::-1], FIXED), "expected finite x1, y1, x2, y2"),
    ],
)
def test_boxes_that_would_shift_into_other_images_are_rejected(
    tmp_path: Path, change: Callable[[Lists], pa.Array], message: str
) -> None:
    with pytest.raises(UnreadableDataset, match=rf"part-\d+-.*{message}"):
        read_boxes(tmp_path, change)
