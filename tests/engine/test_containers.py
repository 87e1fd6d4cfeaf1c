"""Jobs on images inside tar and Parquet files give the rows that they give on files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import shards
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import ChangedContainer
from pipeline.manifest_writer import write_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.sources.dataset import Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.parquet_images import ParquetLayout, open_parquet_images
from pipeline.sources.webdataset import open_webdataset
from tests.engine.drawn_images import draw_images
from tests.sources.containers import write_image_table, write_tar

pytestmark = pytest.mark.usefixtures("ray_cluster")
SETTINGS = ProposalSettings(strategy="single", max_boxes=50)
OPTIONS = RunOptions(shard_size=4, max_failed_fraction=1.0)


def propose(folder: Path, name: str, dataset: Dataset) -> list[dict[str, Any]]:
    manifest = f"{folder}/{name}.parquet"
    write_manifest(manifest, dataset.rows, None, has_members=dataset.has_members)
    return read_rows(manifest, f"{folder}/{name}")


def read_rows(manifest: str, output: str) -> list[dict[str, Any]]:
    run_proposals(manifest, output, SETTINGS, options=OPTIONS)
    return read_table(output)


def read_table(output: str) -> list[dict[str, Any]]:
    return [row for part in shards.open_parts(output).read_tables() for row in part.to_pylist()]


def test_rows_equal_those_of_files(tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "images", 6)
    images = {path.name: path.read_bytes() for path in paths}
    names = [path.stem for path in paths]
    write_tar(tmp_path / "tars" / "a.tar", images)
    table = write_image_table(tmp_path / "data" / "a.parquet", list(images.values()), {"id": names})
    by_source = [
        propose(tmp_path, "files", open_folder(str(tmp_path / "images"))),
        propose(tmp_path, "tar", open_webdataset([str(tmp_path / "tars")])),
        propose(
            tmp_path, "cells", open_parquet_images([str(table)], ParquetLayout(id_column="id"))
        ),
    ]
    for rows in by_source:
        assert [row["status"] for row in rows] == ["ok"] * 6
        for row in rows:  # the order of boxes depends on the id, and the key on the place
            row["image_id"], row["boxes"] = Path(row["image_id"]).stem, sorted(row["boxes"])
            del row["image_key"]
    assert by_source[0] == by_source[1] == by_source[2]

    write_tar(tmp_path / "tars" / "a.tar", dict(reversed(images.items())))
    rows = read_rows(f"{tmp_path}/tar.parquet", f"{tmp_path}/again")
    assert {row["error_type"] for row in rows} == {ChangedContainer.__name__}


def test_rows_of_an_earlier_output_are_reused_unless_the_file_changed(tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "images", 6)
    images = {path.name: path.read_bytes() for path in paths}
    first, second = dict(list(images.items())[:4]), dict(list(images.items())[4:])

    def run(name: str, **options: Any) -> int:
        dataset = open_webdataset([f"{tmp_path}/tars"])
        manifest = f"{tmp_path}/{name}.parquet"
        write_manifest(manifest, dataset.rows, None, has_members=True)
        chosen = RunOptions(shard_size=4, **options)
        return run_proposals(manifest, f"{tmp_path}/{name}", SETTINGS, options=chosen).images_reused

    write_tar(tmp_path / "tars" / "a.tar", first)
    assert run("old") == 0
    write_tar(tmp_path / "tars" / "b.tar", second)
    assert run("grown", reuse=f"{tmp_path}/old") == 4
    rows = {"grown": read_table(f"{tmp_path}/grown"), "old": read_table(f"{tmp_path}/old")}
    assert rows["grown"][:4] == rows["old"]
    write_tar(tmp_path / "tars" / "a.tar", dict(reversed(first.items())))
    assert run("repacked", reuse=f"{tmp_path}/grown") == 2
