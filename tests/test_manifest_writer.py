"""Manifests of several files: written together, read as one, and never a part of one."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.manifest_writer import ManifestContents, open_manifest_writer, write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.seen_ids import SeenIds
from pipeline.shards import cut_manifest

CONTENTS = ManifestContents(("cat",))
NAMES = ["manifest.parquet", "manifest_00001.parquet", "manifest_00002.parquet"]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.manifest_writer.ROW_GROUP", 4)


def build_row(index: int) -> ManifestRow:
    objects = (None, (), (AnnotatedObject("cat", 1, 2, 3.5, 4, crowd=True),))[index % 3]
    return ManifestRow(f"p{index:03}", f"/images/{index}", 8, 9, objects)


def write(uri: Path, rows: int, file_rows: int = 8) -> str:
    with open_manifest_writer(str(uri), CONTENTS, file_rows) as writer:
        for index in range(rows):
            writer.add(build_row(index))
    return writer.location


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_files_is_the_manifest_that_one_file_is(tmp_path: Path) -> None:
    one, several = write(tmp_path / "one.parquet", 21), write(tmp_path / "several", 21)
    assert (one, several) == (f"{tmp_path}/one.parquet", f"{tmp_path}/several")
    assert list_files(tmp_path / "several") == NAMES
    manifests = [open_manifest(one), open_manifest(several)]
    assert [(file.first_row, file.rows) for file in manifests[1].files] == [(0, 8), (8, 8), (16, 5)]
    assert manifests[0].read(0, 21).equals(manifests[1].read(0, 21))
    assert manifests[0].read(0, 3).column("objects").to_pylist()[:2] == [None, []]
    cuts = [cut_manifest(manifest, 5) for manifest in manifests]
    keys = [[shard.key for shard in cut.build_shards("settings")] for cut in cuts]
    assert len(keys[0]) == 5
    assert keys[0] == keys[1]
    assert cuts[0].dataset == cuts[1].dataset


def test_up_to_a_full_file_there_is_one(tmp_path: Path) -> None:
    assert write(tmp_path / "m", 8) == f"{tmp_path}/m/manifest.parquet"
    assert list_files(tmp_path / "m") == NAMES[:1]


def test_a_smaller_manifest_replaces_all_files_of_a_larger_one(tmp_path: Path) -> None:
    for rows, files in ((21, 3), (9, 2), (3, 1), (16, 2)):
        write(tmp_path / "m", rows)
        assert list_files(tmp_path / "m") == NAMES[:files]
        assert open_manifest(f"{tmp_path}/m").rows == rows


@pytest.mark.parametrize("missing", NAMES)
def test_a_manifest_that_lacks_a_file_is_rejected(missing: str, tmp_path: Path) -> None:
    write(tmp_path / "m", 21)
    (tmp_path / "m" / missing).unlink()
    with pytest.raises(
        UnreadableDataset, match=r"holds 2 files with .* rows, expected 3 .* 21 rows"
    ):
        open_manifest(f"{tmp_path}/m")


def test_one_of_several_files_is_no_manifest(tmp_path: Path) -> None:
    write(tmp_path / "m", 21)
    with pytest.raises(UnreadableDataset, match=r"is one of the 3 files .* pass their folder"):
        open_manifest(f"{tmp_path}/m/manifest.parquet")
    table = pq.ParquetFile(tmp_path / "m" / NAMES[0]).read()
    metadata = {key: table.schema.metadata[key] for key in table.schema.metadata if key != b"files"}
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "filtered.parquet")
    assert open_manifest(f"{tmp_path}/filtered.parquet").rows == 8


def test_files_of_two_manifests_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "m", 21)
    write(tmp_path / "other.parquet", 3)
    (tmp_path / "other.parquet").rename(tmp_path / "m" / "z.parquet")
    with pytest.raises(UnreadableDataset, match="files of several manifests are mixed"):
        open_manifest(f"{tmp_path}/m")
    with pytest.raises(
        InvalidConfiguration, match=r"holds z.parquet, and the manifest needs several"
    ):
        write(tmp_path / "m", 21)
    assert write(tmp_path / "m", 3) == f"{tmp_path}/m/manifest.parquet"


def test_an_error_leaves_the_earlier_files_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "m", 21)
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with pytest.raises(UnreadableDataset, match="'p000' occurs twice"):
        write_manifest(f"{tmp_path}/m", [build_row(index % 20) for index in range(40)], ["cat"])
    with pytest.raises(UnreadableDataset, match="the dataset holds no images"):
        write(tmp_path / "m", 0)
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize("place", ["7", '{"index": -1, "count": 1, "rows": 3}', '{"index": 0}'])
def test_a_place_that_is_none(place: str, tmp_path: Path) -> None:
    write(tmp_path / "m.parquet", 3)
    table = pq.ParquetFile(tmp_path / "m.parquet").read()
    metadata = {**table.schema.metadata, b"files": place.encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "n.parquet")
    with pytest.raises(
        UnreadableDataset, match=r"n.parquet.* expected the numbers index, count, rows"
    ):
        open_manifest(f"{tmp_path}/n.parquet")


def test_repeated_ids_are_found_among_recent_and_merged_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.seen_ids._FEWEST_RECENT", 3)
    seen = SeenIds()
    for first in range(0, 100, 2):
        assert seen.add([f"p{first}", f"p{first + 1}"]) is None
    assert seen.add(["new", "p0"]) == 1
    assert seen.add(["p99"]) == 0
    assert seen.add(["other", "newer", "newer"]) == 2
    assert seen.add(["last"]) is None
