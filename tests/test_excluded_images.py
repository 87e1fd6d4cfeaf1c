"""Lists of images to leave out: by id, or by id and place."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UnreadableDataset
from pipeline.excluded_images import read_excluded_images
from pipeline.image_keys import read_image_keys
from pipeline.manifests import open_manifest
from tests.outputs import write_annotations


def _write(folder: Path, **columns: list[str | None]) -> str:
    uri = str(folder / "list.parquet")
    pq.write_table(pa.table(columns), uri)
    return uri


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    return write_annotations(str(tmp_path / "m.parquet"), {"a": [], "b": [], "c": []}, ["x"])


def test_ids_alone_name_images_of_any_place(tmp_path: Path, manifest: str) -> None:
    excluded = read_excluded_images(_write(tmp_path, image_id=["c", "a", "c", "z"]))
    assert excluded.find_rows(open_manifest(manifest)).tolist() == [0, 2]
    assert excluded.find_rows(open_manifest(manifest), limit=1).tolist() == [0]
    assert len(excluded) == 3


def test_a_key_names_the_image_of_one_place_only(tmp_path: Path, manifest: str) -> None:
    keys = list(read_image_keys(open_manifest(manifest)))
    excluded = read_excluded_images(
        _write(tmp_path, image_id=["a", "b"], image_key=[keys[0], "of another manifest"])
    )
    assert excluded.find_rows(open_manifest(manifest)).tolist() == [0]


def test_the_digest_does_not_depend_on_the_order(tmp_path: Path) -> None:
    digests = [
        read_excluded_images(_write(tmp_path, image_id=ids)).digest
        for ids in (["a", "b"], ["b", "a", "a"], ["a"])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_an_empty_list_leaves_nothing_out(tmp_path: Path, manifest: str) -> None:
    uri = str(tmp_path / "list.parquet")
    pq.write_table(pa.table({"image_id": pa.array([], pa.string())}), uri)
    excluded = read_excluded_images(uri)
    assert (len(excluded), len(excluded.find_rows(open_manifest(manifest)))) == (0, 0)


def test_what_is_no_list_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match="has no column image_id"):
        read_excluded_images(_write(tmp_path, image=["a"]))
    with pytest.raises(UnreadableDataset, match="it is null"):
        read_excluded_images(_write(tmp_path, image_id=["a", None]))
    with pytest.raises(UnreadableDataset, match="empty key"):
        read_excluded_images(_write(tmp_path, image_id=["a"], image_key=[""]))
    (tmp_path / "list.parquet").write_text("image_id\na\n")
    with pytest.raises(UnreadableDataset, match="is not readable Parquet"):
        read_excluded_images(str(tmp_path / "list.parquet"))
