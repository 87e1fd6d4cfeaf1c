"""`analyze sql` as a command, and the matches as other tools read them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline import schema
from tests.exports.worlds import World, write_world
from tests.jobs.command import read_error_output, run_job

pytestmark = pytest.mark.usefixtures("no_ray")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def matches(world: World) -> Path:
    arguments = ("--detections", world.detections, "--manifest", world.manifest)
    assert run_job("analyze", "detections", *arguments, "--output", f"{world.folder}/scores") == 0
    return world.folder / "scores" / "matches"


def test_a_result_is_printed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    statement = "SELECT image_id, len(image_id) AS length FROM images ORDER BY 1"
    assert run_job("analyze", "sql", "--manifest", world.manifest, statement) == 0
    printed = capsys.readouterr().out
    assert "image_id" in printed
    assert "broken" in printed


def test_matches_are_a_view(
    world: World, matches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = "SELECT sum(true_all & 1) AS hits, count(*) FILTER (kind = 'missed') FROM matches"
    target = world.folder / "hits.csv"
    options = ("--matches", str(matches.parent), "--output", str(target))
    assert run_job("analyze", "sql", *options, statement) == 0
    assert f"wrote 1 rows: {target}" in capsys.readouterr().out
    assert target.read_text().splitlines()[1] == "3,1"


def test_the_parts_of_matches_are_readable_by_other_tools(matches: Path) -> None:
    parts = f"{matches}/part-*.parquet"
    names = schema.MATCHES.names
    of_duckdb = duckdb.sql(f"SELECT * FROM '{parts}'").to_arrow_table().to_pylist()
    of_polars = pl.read_parquet(parts).to_dicts()
    files = sorted(matches.glob("part-*.parquet"))
    of_pandas = pd.concat(map(pd.read_parquet, files))
    expected = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert of_duckdb == of_polars == expected
    assert list(of_pandas.columns) == names
    assert of_pandas["label"].tolist() == [row["label"] for row in expected]
    assert int(of_pandas["true_all"].fillna(0).astype(int).mod(2).sum()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "pass --detections, --manifest or --matches"),
        ("--manifest {w}/m.parquet", "pass a statement, such as 'SHOW TABLES', or --views"),
        ("--manifest {w}/none.parquet X", "{w}/none.parquet does not exist"),
        ("--detections {w}/none X", "{w}/none holds no shards.parquet"),
        ("--matches {w}/detections X", "{w}/detections has no column row, so it holds no matches"),
        ("--matches {w} X", "{w} holds no matches: expected the output of analyze detections"),
        ("--manifest {w}/m.parquet X", "SQL: Parser Error: syntax error"),
        ("--manifest {w}/m.parquet --output {w}/x.txt X", "ends in neither .parquet nor .csv"),
        (
            "--manifest {w}/m.parquet --output {w}/m.parquet X",
            "--output {w}/m.parquet is the --manifest",
        ),
        (
            "--detections {w}/detections --views {w}/detections/shards.parquet X",
            "--views {w}/detections/shards.parquet is in a folder that the query reads",
        ),
    ],
)
def test_wrong_input_is_one_line(
    arguments: str, message: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job("analyze", "sql", *arguments.format(w=world.folder).split()) == 2
    error = read_error_output(capsys)
    assert message.format(w=world.folder) in error
    assert error.count("\n") == 1
    assert not (world.folder / "x.txt").exists()
