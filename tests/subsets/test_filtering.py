"""Conditions in SQL over a manifest; nothing else is possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from pipeline.errors import InvalidConfiguration
from pipeline.manifests import open_manifest
from pipeline.subsets.filtering import find_rows
from pipeline.subsets.manifest_copy import write_selections
from tests.outputs import make_object, write_annotations


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    images = {
        "a": [make_object("dog", (0, 0, 9, 9)), make_object("cat", (0, 0, 9, 9))],
        "b": [],
        "c": None,
    }
    uri = write_annotations(
        str(tmp_path / "m.parquet"), images, ["cat", "dog"], category_ids=[7, 9]
    )
    table = pq.ParquetFile(uri).read().append_column("video", pa.array(["v1", "v1", None]))
    pq.write_table(table, uri)
    return uri


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("list_contains(labels, 'dog')", [0]),
        ("num_objects = 0", [1, 2]),
        ("objects IS NULL", [2]),
        ("video = 'v1' AND width >= 100 -- both", [0, 1]),
        ("image_id IN ('a', 'c')", [0, 2]),
    ],
)
def test_rows_that_fulfil_the_condition(manifest: str, condition: str, rows: list[int]) -> None:
    assert np.flatnonzero(find_rows(open_manifest(manifest), condition)).tolist() == rows


@pytest.mark.parametrize(
    "condition",
    [
        "wdth > 3",
        "",
        "width >",
        "sum(width) > 3",
        "true) UNION SELECT (1",
        "true; DROP TABLE manifest",
        "image_id IN (SELECT * FROM read_csv('/etc/passwd'))",
    ],
)
def test_an_error_is_one_line_that_quotes_the_condition(manifest: str, condition: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        find_rows(open_manifest(manifest), condition)
    assert str(caught.value).startswith(f"--where {condition!r}: ")
    assert "\n" not in str(caught.value)


def test_columns_and_metadata_stay(manifest: str, tmp_path: Path) -> None:
    target = str(tmp_path / "out.parquet")
    counts = write_selections(open_manifest(manifest), [target], np.array([-1, 0, 0]))
    copied = open_manifest(target)
    assert (counts, copied.classes, copied.category_ids) == ([2], ("cat", "dog"), (7, 9))
    table = pq.ParquetFile(target).read()
    assert table["image_id"].to_pylist() == ["b", "c"]
    assert table["video"].to_pylist() == ["v1", None]
    assert schema.read_metadata(table.schema, "classes") == ["cat", "dog"]
