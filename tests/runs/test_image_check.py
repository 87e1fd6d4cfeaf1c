"""What is looked at before a run: whether the manifest's images are there, and how large they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import StorageError, UnreadableDataset
from pipeline.manifests import Manifest, ManifestRow, open_manifest, write_manifest
from pipeline.runs import image_check
from pipeline.runs.image_check import FirstLook


def _manifest(folder: Path, uris: Sequence[str]) -> Manifest:
    rows = [ManifestRow(str(i), uri, None, None, None) for i, uri in enumerate(uris)]
    write_manifest(f"{folder}/m.parquet", rows, None)
    return open_manifest(f"{folder}/m.parquet")


def _mean_size(
    manifest: Manifest, rows: int, all_may_fail: bool = False, own_disk: bool = True
) -> float:
    look = FirstLook(manifest, rows, all_may_fail=all_may_fail, own_disk=own_disk)
    look()
    return look.mean_size


def test_the_mean_of_those_that_are_there(tmp_path: Path) -> None:
    for name, size in (("a", 100), ("b", 200)):
        (tmp_path / name).write_bytes(bytes(size))
    manifest = _manifest(tmp_path, [f"{tmp_path}/{name}" for name in ("a", "gone", "b")])
    assert _mean_size(manifest, 3) == 150
    assert _mean_size(manifest, 1) == 100


def test_images_that_moved_are_told_before_work(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, [f"{tmp_path}/{i}" for i in range(100)])
    told = rf"none of 16 images .* have they moved\? The first: {tmp_path}/0 does not exist"
    with pytest.raises(UnreadableDataset, match=told):
        _mean_size(manifest, 100)
    with pytest.raises(UnreadableDataset, match="none of 5 images"):
        _mean_size(manifest, 5)
    assert _mean_size(manifest, 100, all_may_fail=True) == 0
    (tmp_path / "50").write_bytes(b"some")  # one in the middle is enough: they are spread
    assert _mean_size(manifest, 100) == 4


def test_the_nodes_of_a_cluster_may_have_disks_of_their_own(
    tmp_path: Path,
) -> None:
    assert _mean_size(_manifest(tmp_path, ["/mounted/on/the/nodes.jpg"]), 1, own_disk=False) == 0
    with pytest.raises(UnreadableDataset, match="Protocol not known"):
        _mean_size(_manifest(tmp_path, ["nostore://bucket/a.jpg"]), 1)


@pytest.mark.parametrize(
    ("size", "read", "gone"),
    [
        (storage.MissingObject("x does not exist"), b"1", False),  # signed for reading alone
        (storage.MissingObject("x"), storage.MissingObject("x is gone"), True),
        (storage.AccessDenied("x"), storage.AccessDenied("x"), False),  # the nodes' role may do
        (StorageError("its store does not tell its size"), b"1", False),
        (StorageError("no answer"), StorageError("no answer"), False),
    ],
)
def test_a_store_in_trouble_is_no_image_that_moved(
    size: Exception, read: bytes | Exception, gone: bool, tmp_path: Path
) -> None:
    manifest = _manifest(tmp_path, ["s3://bucket/x"])

    def answer(told: bytes | Exception) -> bytes:
        if isinstance(told, Exception):
            raise told
        return told

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "size", lambda uri: answer(size))
        patch.setattr(storage, "read_start", lambda uri, count: answer(read))
        if gone:
            with pytest.raises(UnreadableDataset, match="The first: x is gone"):
                _mean_size(manifest, 1)
        else:
            assert _mean_size(manifest, 1) == 0


def test_a_store_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "SECONDS", 0.2)
    monkeypatch.setattr(storage, "size", lambda uri: time.sleep(3) if "slow" in uri else 7)
    start = time.monotonic()
    assert _mean_size(_manifest(tmp_path, ["s3://slow/x", "s3://b/y"]), 2) == 7
    assert time.monotonic() - start < 2.5
