from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import schema
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Failure
from pipeline.runs.tables import build_detections_table, build_proposals_table

BOXES = np.array([[0, 0, 4, 5], [1, 1, 2.5, 3]], np.float32)
FAILURE = Failure("decode", "UnreadableImage", "the file is empty (0 bytes)")


class _Detections(NamedTuple):
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]


def test_a_proposals_table_has_one_row_per_image_and_all_metadata() -> None:
    images = [EncodedImage("a", "/a", 10, 8, boxes=BOXES), EncodedImage("b", "/b", failure=FAILURE)]
    table = build_proposals_table(images, {"algorithm": "x"}, "run")
    assert table.schema.equals(schema.PROPOSALS)
    assert schema.read_metadata(table.schema, "provenance") == {"algorithm": "x"}
    assert schema.read_metadata(table.schema, "fingerprint") == "run"
    assert schema.read_metadata(table.schema, "schema_version") == schema.VERSION
    assert table.to_pylist() == [
        {
            "image_id": "a",
            "width": 10,
            "height": 8,
            "boxes": BOXES.tolist(),
            "status": "ok",
            "error_type": None,
            "error_message": None,
        },
        {
            "image_id": "b",
            "width": None,
            "height": None,
            "boxes": None,
            "status": "failed",
            "error_type": "UnreadableImage",
            "error_message": "the file is empty (0 bytes)",
        },
    ]


def test_a_detections_table_nests_the_detections_of_each_image() -> None:
    images = [
        EncodedImage("a", "s3://key:secret@b/a", 10, 8, boxes=BOXES),
        EncodedImage("b", "/b", failure=FAILURE),
        EncodedImage("c", "/c", 3, 3, boxes=BOXES[:1]),
    ]
    detections = _Detections(BOXES, np.array([0.9, 0.5], np.float32), np.array([1, 0], np.int32))
    empty = _Detections(BOXES[:0], np.empty(0, np.float32), np.empty(0, np.int32))
    table = build_detections_table(images, [detections, None, empty], ("cat", "dog"), "run")
    assert table.schema.equals(schema.DETECTIONS)
    assert schema.read_metadata(table.schema, "classes") == ["cat", "dog"]
    assert schema.read_metadata(table.schema, "fingerprint") == "run"
    assert schema.read_metadata(table.schema, "schema_version") == schema.VERSION
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    assert table["uri"].to_pylist() == ["s3://b/a", "/b", "/c"]
    assert table["status"].to_pylist() == ["ok", "failed", "ok"]
    assert table["stage"].to_pylist() == [None, "decode", None]
    assert table["num_proposals"].to_pylist() == [2, None, 1]
    first, failed, last = table["detections"].to_pylist()
    assert (failed, last) == (None, [])
    assert [(d["label"], d["label_id"]) for d in first] == [("dog", 1), ("cat", 0)]
    np.testing.assert_allclose([d["score"] for d in first], [0.9, 0.5], rtol=1e-6)
    corners = [[d[name] for name in ("x1", "y1", "x2", "y2")] for d in first]
    np.testing.assert_array_equal(corners, BOXES)


def test_tables_without_images_have_their_schema() -> None:
    assert build_proposals_table([], {}, "run").schema.equals(schema.PROPOSALS)
    assert build_detections_table([], [], ("cat",), "run").schema.equals(schema.DETECTIONS)
