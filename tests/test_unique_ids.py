from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import unique_ids
from pipeline.errors import UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.unique_ids import UniqueIds


def _manifest(folder: Path, ids: list[str]) -> Manifest:
    path = folder / "manifest.parquet"
    pq.write_table(pa.table({"image_id": ids, "uri": [f"/{i}" for i in range(len(ids))]}), path)
    return open_manifest(str(path))


def _check(folder: Path, ids: list[str]) -> None:
    checker = UniqueIds(len(ids))
    for start in range(0, len(ids), 3):
        checker.add(ids[start : start + 3])
    checker.check(_manifest(folder, ids))


def test_an_id_that_occurs_twice_is_named_with_its_rows(tmp_path: Path) -> None:
    ids = [f"image-{i}" for i in range(1000)]
    _check(tmp_path, ids)
    ids[900] = "image-17"
    with pytest.raises(UnreadableDataset, match=r"'image-17' occurs twice, in rows 17 and 900$"):
        _check(tmp_path, ids)


def test_different_ids_with_equal_hashes_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unique_ids, "hash", len, raising=False)
    _check(tmp_path, ["a", "b", "cc", "dd", "eee"])
    with pytest.raises(UnreadableDataset, match=r"'b' .*rows 1 and 2$"):
        _check(tmp_path, ["a", "b", "b"])
