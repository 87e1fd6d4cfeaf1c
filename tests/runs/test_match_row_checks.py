"""Matches of a real matching pass; an object that is lost, doubled or invented is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import schema
from pipeline.analysis.image_counts import count_images
from pipeline.analysis.manifest_join import JoinedBatch
from pipeline.analysis.match_table import build_matches
from pipeline.manifests import open_manifest
from pipeline.runs.match_row_checks import IMAGES, find_wrong_matches
from pipeline.shards import Shard, open_parts
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

SHARD = Shard(0, "0" * 24, 0, 4)


@pytest.fixture
def matches(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    """Matches of four images with three objects, one of them difficult, and the manifest's rows."""
    objects = {
        "a": [
            make_object("cat", (0, 0, 20, 20)),
            make_object("dog", (40, 40, 60, 60)),
            make_object("cat", (70, 70, 90, 90), difficult=True),
        ],
        "b": [],
        "c": None,
        "d": [make_object("cat", (0, 0, 9, 9))],
    }
    detected: dict[str, Any] = {
        "a": [
            ("cat", 0.9, (0, 0, 20, 19)),
            ("cat", 0.8, (70, 70, 90, 91)),
            ("dog", 0.7, (0, 0, 5, 5)),
        ],
        "b": [("dog", 0.5, (1, 1, 9, 9))],
        "c": [("dog", 0.5, (1, 1, 9, 9))],
        "d": FailedImage(),
    }
    uri = write_annotations(str(tmp_path / "m.parquet"), objects, ("cat", "dog"))
    output = write_detections(str(tmp_path / "d"), uri, detected, ("cat", "dog"), shard_size=4)
    listed = open_manifest(uri).read(0, 4)
    results = next(open_parts(output).read_tables())
    batch = JoinedBatch(0, results, listed)
    table = build_matches(batch, ("cat", "dog"), 0)
    metadata = {IMAGES: count_images(batch).to_json()}
    return table.cast(schema.add_metadata(table.schema, metadata)), listed


def _set(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def _shift(table: pa.Table) -> pa.Table:
    return _set(table, "row", pc.add(table["row"], 4).to_pylist())


def test_real_matches_pass(matches: tuple[pa.Table, pa.Table]) -> None:
    table, listed = matches
    assert {"detection", "missed"} <= set(table["kind"].to_pylist())
    assert list(find_wrong_matches(table, listed, SHARD)) == []


@pytest.mark.parametrize(
    ("change", "text", "image"),
    [
        (lambda t: t.filter(pc.not_equal(t["kind"], "missed")), "stands in 0 rows", "a"),
        (lambda t: pa.concat_tables([t.slice(0, 1), t]), "stands in 2 rows", "a"),
        (_shift, "row 4 is none of the shard's", None),
        (lambda t: _set(t, "shard", [7] * len(t)), "its shard is not 0", "a"),
        (
            lambda t: _set(t, "kind", ["found", *t["kind"].to_pylist()[1:]]),
            "its kind is none of",
            "a",
        ),
        (lambda t: _set(t, "score", [None] * len(t)), "a detection without a score", "a"),
        (
            lambda t: _set(t, "image_id", ["x", *t["image_id"].to_pylist()[1:]]),
            "has image 'x'",
            "a",
        ),
        (lambda t: t.take(list(range(len(t) - 1, -1, -1))), "not in the order", None),
        (lambda t: t.cast(schema.MATCHES), "its metadata counts None images, expected 4", None),
        (
            lambda t: _set(t, "object_index", [9, *t["object_index"].to_pylist()[1:]]),
            "an object that the image does not have",
            "a",
        ),
    ],
)
def test_what_is_wrong_is_named(
    matches: tuple[pa.Table, pa.Table],
    change: Callable[[pa.Table], pa.Table],
    text: str,
    image: str | None,
) -> None:
    table, listed = matches
    faults = [(f.text, f.image) for f in find_wrong_matches(change(table), listed, SHARD)]
    assert any(text in fault and of_image == image for fault, of_image in faults), faults
