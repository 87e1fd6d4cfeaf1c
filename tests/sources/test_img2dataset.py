from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import imaging
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.image_reader import read_image
from pipeline.sources.img2dataset import open_img2dataset
from pipeline.sources.options import SourceOptions
from tests.sources.containers import encode_image, write_tar

KEYS = ["000000000", "000000001", "000000002"]


def write_shard(root: Path, layout: str, shard: str = "00000", **changes: Any) -> Path:
    """Three images in one of img2dataset's output formats; the second could not be downloaded."""
    images = {KEYS[0]: encode_image(10), KEYS[2]: encode_image(30)}
    columns: dict[str, Any] = {
        "url": ["http://a/1", "http://a/2", "http://a/3"],
        "key": KEYS,
        "status": ["success", "failed_to_download", "success"],
        "error_message": [None, "HTTP Error 404: Not Found", None],
        "width": pa.array([40, None, 40], pa.int32()),
        "height": pa.array([30, None, 30], pa.int32()),
    }
    root.mkdir(exist_ok=True)
    if layout == "webdataset":
        write_tar(root / f"{shard}.tar", {f"{key}.jpg": data for key, data in images.items()})
    elif layout == "files":
        (root / shard).mkdir()
        for key, data in images.items():
            (root / shard / f"{key}.jpg").write_bytes(data)
    else:
        columns["jpg"] = pa.array([images.get(key) for key in KEYS], pa.binary())
    pq.write_table(pa.table({**columns, **changes}), root / f"{shard}.parquet")
    (root / f"{shard}_stats.json").write_text("{}")
    return root


@pytest.mark.parametrize("layout", ["webdataset", "files", "parquet"])
def test_every_output_format_is_read_alike(tmp_path: Path, layout: str) -> None:
    dataset = open_img2dataset(str(write_shard(tmp_path, layout)))
    first, failed, last = dataset.rows
    assert [row.image_id for row in (first, failed, last)] == KEYS
    assert (last.width, last.height) == (40, 30)
    values = [imaging.decode_image(read_image(r.uri, r.member)).mean() for r in (first, last)]
    assert values == pytest.approx([10, 30], abs=1)
    with pytest.raises(MissingObject, match="failed_to_download: HTTP Error 404"):
        read_image(failed.uri, failed.member)
    assert dataset.tally.describe_repairs() == "nothing"


@pytest.mark.parametrize("layout", ["webdataset", "files"])
def test_an_image_that_the_table_lists_must_exist(tmp_path: Path, layout: str) -> None:
    keys = [KEYS[0], KEYS[1], "000000007"]
    root = str(write_shard(tmp_path, layout, key=keys))
    dataset = open_img2dataset(root, SourceOptions(max_invalid=1.0))
    assert [row.image_id for row in dataset.rows] == KEYS[:2]
    assert dataset.tally.invalid_images == 1
    with pytest.raises(UnreadableDataset, match="000000007 is not in the"):
        list(open_img2dataset(root, SourceOptions(strict=True)).rows)


def test_other_folders_and_tables_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match="holds no table of an img2dataset shard"):
        open_img2dataset(str(tmp_path))
    pq.write_table(pa.table({"x": [1]}), tmp_path / "00000.parquet")
    with pytest.raises(UnreadableDataset, match="no column key, so it is no table of img2dataset"):
        list(open_img2dataset(str(tmp_path)).rows)
    write_shard(tmp_path, "parquet", "00001")
    table = pq.ParquetFile(tmp_path / "00001.parquet").read().drop_columns(["jpg"])
    pq.write_table(table, tmp_path / "00000.parquet")
    with pytest.raises(UnreadableDataset, match="neither in a tar file nor in a folder"):
        list(open_img2dataset(str(tmp_path)).rows)


@pytest.mark.parametrize("layout", ["webdataset", "files", "parquet"])
def test_stated_sizes_are_compared_with_the_headers(tmp_path: Path, layout: str) -> None:
    root = str(write_shard(tmp_path, layout, width=pa.array([40, None, 44], pa.int32())))
    assert [row.width for row in open_img2dataset(root).rows] == [40, None, 44]
    dataset = open_img2dataset(root, SourceOptions(check_sizes=True))
    assert [row.width for row in dataset.rows] == [40, None, 40]
    assert dataset.tally.repairs.total() == 1
