"""CSV and flat Parquet, read by pandas, Polars and DuckDB."""

from __future__ import annotations

import csv
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

from pipeline.engine.export.run import ExportSettings
from pipeline.exports.csv_table import COLUMNS
from tests.exports.worlds import World

FIRST = {
    "image_id": "7",
    "uri": "/images/7.jpg",
    "width": 100,
    "height": 100,
    "label": "cat",
    "label_id": 0,
    "score": pytest.approx(0.9),
    "x1": 2,
    "y1": 2,
    "x2": 40,
    "y2": 60,
}


def check(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 6
    assert tuple(rows[0]) == COLUMNS
    assert rows[0] == FIRST
    assert rows[-1]["y2"] == pytest.approx(31.1)
    assert [row["image_id"] for row in rows] == ["7", "7", "7", "07", "b/c", "b/c"]


def test_csv(world: World) -> None:
    world.export(ExportSettings("csv"))
    path = world.output / "detections.csv"
    check(pd.read_csv(path, dtype={"image_id": str}).to_dict("records"))
    check(pl.read_csv(path, schema_overrides={"image_id": pl.String}).to_dicts())


def test_parquet(world: World) -> None:
    world.export(ExportSettings("parquet"))
    path = world.output / "flat_detections"
    check(pd.read_parquet(path).to_dict("records"))
    check(pl.read_parquet(path / "*.parquet").to_dicts())
    query = f"SELECT * FROM '{path}/*.parquet'"
    check(duckdb.sql(query).to_arrow_table().to_pylist())
    assert [p.name for p in sorted(path.iterdir())] == [f"00000{k}.parquet" for k in range(3)]


def test_texts_of_the_dataset_run_as_no_formula(world: World) -> None:
    world.export(ExportSettings("csv"))
    with (world.output / "left_out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error_message"] for row in rows] == ["'=the file is empty"]
