"""SQL over outputs: the views, what a query may do, and where results go."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import candidate_thresholds, storage
from pipeline.analysis.query_table import MOST_ROWS, build_query_table
from pipeline.analysis.sql import run_query, write_result
from pipeline.analysis.sql_views import format_script, open_views
from pipeline.candidate_thresholds import CandidateThresholds
from pipeline.errors import InvalidConfiguration, PipelineError
from pipeline.run_record import RunRecord, read_record
from tests.exports.worlds import World, write_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return write_world(tmp_path)


def query(statement: str, **inputs: str) -> list[dict[str, Any]]:
    with run_query(open_views(**inputs), statement) as reader:
        rows: list[dict[str, Any]] = reader.read_all().to_pylist()
    return rows


def query_world(world: World, statement: str) -> list[dict[str, Any]]:
    return query(statement, detections_uri=world.detections, manifest_uri=world.manifest)


def test_views(world: World) -> None:
    by_label = "SELECT label, count(*) AS n, max(score) AS best FROM {} GROUP BY ALL ORDER BY label"
    counts = query_world(world, by_label.format("detections"))
    assert [(row["label"], row["n"], round(row["best"], 4)) for row in counts] == [
        ("cat", 4, 0.9),
        ("dog", 2, 0.8),
    ]
    images = query_world(world, "SELECT * FROM images ORDER BY image_id")
    assert [tuple(row.values()) for row in images] == [
        ("07", "/images/07.jpg", 100, 100, "ok", 9, 1, 1),
        ("7", "/images/7.jpg", 100, 100, "ok", 9, 3, 2),
        ("b/c", "/images/b/c.jpg", 100, 100, "ok", 9, 2, 2),
        ("broken", "/images/broken.jpg", 100, 100, "failed", None, None, 1),
        ("empty", "/images/empty.jpg", 100, 100, "ok", 9, 0, 0),
    ]
    objects = query_world(world, "SELECT * FROM objects WHERE crowd OR difficult")
    assert [(o["image_id"], o["object_index"], o["label"]) for o in objects] == [
        ("07", 0, "cat"),
        ("b/c", 0, "dog"),
    ]
    (failure,) = query_world(world, "SELECT * FROM failures")
    assert failure["error_message"] == "=the file is empty"


def test_each_input_alone_has_images(world: World) -> None:
    count = "SELECT count(*) AS n FROM images"
    assert query(count, detections_uri=world.detections) == [{"n": 5}]
    assert query(count, manifest_uri=world.manifest) == [{"n": 5}]


def test_parts_that_are_not_in_the_shard_table_do_not_count(world: World) -> None:
    folder = Path(world.detections)
    part = next(folder.glob("part-000000-*.parquet"))
    shutil.copy(part, folder / "part-000000-000000000000000000000000.parquet")
    assert query_world(world, "SELECT count(*) AS n FROM detections") == [{"n": 6}]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM images", 'column "nope" not found'),
        ("SELECT * FROM matches", "matches does not exist! The view matches needs --matches"),
        ("SELECT 1; SELECT 2", "expected one statement, got 2"),
        ("COPY images TO '{w}/x.csv'", "COPY is not allowed"),
        ("CREATE TABLE x AS SELECT 1", "CREATE is not allowed"),
        ("SET enable_external_access = true", "SET is not allowed"),
        ("ATTACH '{w}/x.db'", "ATTACH is not allowed"),
        ("SELECT * FROM read_parquet('{w}/m.parquet')", "file system operations are disabled"),
        ("SELECT * FROM '{w}/m.parquet'", ""),
        ("SELECT * FROM glob('{w}/*')", "file system operations are disabled"),
        ("SELECT * FROM world", "world does not exist"),
        ("SELECT 'x'::INT", "Could not convert"),
    ],
)
def test_a_query_reads_the_views_and_nothing_else(
    statement: str, message: str, world: World
) -> None:
    before = sorted(world.folder.rglob("*"))
    with pytest.raises(InvalidConfiguration, match=r"^SQL: ") as caught:
        query_world(world, statement.format(w=world.folder))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(world.folder.rglob("*")) == before


def test_a_damaged_part_is_an_error(world: World) -> None:
    parts = sorted(Path(world.detections).glob("part-*.parquet"))
    parts[1].write_bytes(parts[1].read_bytes()[:-20])
    with pytest.raises(InvalidConfiguration, match=r"^SQL: "):
        query_world(world, "SELECT count(score) FROM detections")


def test_without_duckdb_one_line_says_what_to_install(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(InvalidConfiguration, match=r"run pip install '\.\[duckdb\]'"):
        query_world(world, "SELECT 1")


def test_results_as_parquet_and_csv(world: World, tmp_path: Path) -> None:
    statement = (
        "SELECT image_id, score, '=1+1' AS f, NULL AS nothing, [1, 2] AS list, true AS flag "
        "FROM detections ORDER BY score DESC, label LIMIT 2"
    )
    for name in ("r.parquet", "r.csv"):
        views = open_views(world.detections)
        with run_query(views, statement) as reader:
            assert write_result(str(tmp_path / name), reader) == 2
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["score"].to_pylist() == pytest.approx([0.9, 0.8])
    assert (tmp_path / "r.csv").read_text() == (
        "image_id,score,f,nothing,list,flag\n"
        '7,0.9,\'=1+1,,"[1, 2]",true\n'
        '7,0.8,\'=1+1,,"[1, 2]",true\n'
    )


def test_a_query_that_fails_late_leaves_the_earlier_result(world: World, tmp_path: Path) -> None:
    target = tmp_path / "r.csv"
    target.write_text("before")
    statement = "SELECT CASE WHEN i > 100000 THEN error('late') ELSE i END FROM range(200000) t(i)"
    with (
        pytest.raises(PipelineError, match="late"),
        run_query(open_views(world.detections), statement) as reader,
    ):
        write_result(str(target), reader)
    assert target.read_text() == "before"


def test_the_script_of_views_works_in_duckdb_itself(world: World) -> None:
    manifest = pq.read_table(world.manifest).drop_columns(["width"])
    pq.write_table(manifest, world.folder / "it's.parquet")
    views = open_views(world.detections, str(world.folder / "it's.parquet"))
    with duckdb.connect() as connection:
        connection.execute(format_script(views))
        counts = {
            view: connection.execute(f"SELECT count(*) FROM {view}").fetchone()
            for view in ("images", "detections", "objects", "failures")
        }
    assert counts == {"images": (5,), "detections": (6,), "objects": (6,), "failures": (1,)}


def test_the_thresholds_of_the_paper_rule_apply(world: World) -> None:
    record = read_record(world.detections)
    assert record is not None
    RunRecord(record.job, {**record.settings, "keep": {"mean_per_image": 1}}).write(
        world.detections
    )
    record = read_record(world.detections)
    assert record is not None
    limits = {"cat": 0.65, "dog": None, "tree": None}
    CandidateThresholds(record.fingerprint, 4, 1, limits).put(world.detections)
    assert candidate_thresholds.read_thresholds(world.detections, record) is not None
    rows = query_world(world, "SELECT label, count(*) AS n FROM detections GROUP BY 1 ORDER BY 1")
    assert rows == [{"label": "cat", "n": 2}, {"label": "dog", "n": 2}]
    assert query_world(world, "SELECT sum(num_detections) AS n FROM images") == [{"n": 4}]


def test_inputs_on_an_object_store(world: World, s3_folder: str) -> None:
    for path in Path(world.detections).iterdir():
        storage.put(f"{s3_folder}/detections/{path.name}", path.read_bytes())
    rows = query("SELECT count(*) AS n FROM detections", detections_uri=f"{s3_folder}/detections")
    assert rows == [{"n": 6}]


def test_a_printed_table_is_limited_and_commands_no_terminal() -> None:
    table = pa.table({"\x1bname": ["[bold]\x1b[31m"] * (MOST_ROWS + 1)})
    printed, has_more = build_query_table(table.to_reader())
    assert (len(printed.rows), has_more) == (MOST_ROWS, True)
    assert str(printed.columns[0].header) == "\\x1bname"
    cells = list(printed.columns[0].cells)
    assert str(cells[0]) == "[bold]\\x1b[31m"
