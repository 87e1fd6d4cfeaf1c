"""Datasets read in Ray tasks: the same rows and counts as in threads, and errors by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.prepare.task_mapper import map_in_tasks
from pipeline.errors import TooManyInvalidImages, UnreadableDataset
from pipeline.sources.dataset import Dataset
from pipeline.sources.folder import open_folder
from pipeline.sources.options import SourceOptions
from pipeline.sources.parquet_images import open_parquet_images
from pipeline.sources.webdataset import WebDatasetLayout, open_webdataset
from tests.sources.containers import encode_image, write_image_table, write_tar
from tests.sources.small_datasets import write_image

pytestmark = pytest.mark.usefixtures("ray_cluster")
ANY = SourceOptions(max_invalid=1.0)
OBJECTS = '[{"bbox": [1, 2, 3, 4], "category": "cat"}, {"bbox": [50, 2, 3, 4], "category": "dog"}]'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three tar files, of which one is cut off, two Parquet files, and a folder with an unreadable image."""
    for name in "abc":
        members: dict[str, bytes | str] = {}
        for number in range(3):
            members |= {
                f"{name}{number}.jpg": encode_image(number),
                f"{name}{number}.json": OBJECTS,
            }
        write_tar(tmp_path / "tars" / f"{name}.tar", members)
        write_image(tmp_path / "images" / f"{name}.jpg")
    damaged = tmp_path / "tars" / "b.tar"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    for name in "de":
        write_image_table(
            tmp_path / "tables" / f"{name}.parquet", [encode_image(5), encode_image(6)]
        )
    (tmp_path / "images" / "z.jpg").write_bytes(b"<html>404</html>")
    return tmp_path


OPENERS: dict[str, Callable[[Path, SourceOptions], Dataset]] = {
    "folder": lambda root, options: open_folder(f"{root}/images", options),
    "parquet": lambda root, options: open_parquet_images([f"{root}/tables"], None, options),
    "webdataset": lambda root, options: open_webdataset(
        [f"{root}/tars"], WebDatasetLayout(objects_key="json"), options
    ),
}


@pytest.mark.parametrize("source", OPENERS)
def test_tasks_read_what_threads_read(source: str, root: Path) -> None:
    here = OPENERS[source](root, ANY)
    there = OPENERS[source](root, replace(ANY, mapper=map_in_tasks))
    rows = list(there.rows)
    assert rows == list(here.rows)
    assert len(rows) >= 3
    assert there.classes == here.classes
    assert there.tally == here.tally


def test_errors_of_tasks_have_their_names(root: Path) -> None:
    tasks = replace(ANY, mapper=map_in_tasks)
    with pytest.raises(TooManyInvalidImages, match=r"1 of 4 images .*z\.jpg"):
        list(open_folder(f"{root}/images", replace(tasks, max_invalid=0.05)).rows)
    write_tar(root / "tars" / "z.tar", {"z.jpg": encode_image(1)}, "w:gz")
    with pytest.raises(UnreadableDataset, match=r"z\.tar is compressed with gzip"):
        list(open_webdataset([f"{root}/tars"], None, tasks).rows)
