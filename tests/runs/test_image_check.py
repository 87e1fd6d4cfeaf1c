"""The check before a run: whether the manifest's images exist, and how large they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.errors import AccessDenied, MissingObject, StorageError, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.runs import image_check
from pipeline.runs.image_check import check_sampled_images


def _manifest(folder: Path, uris: Sequence[str]) -> Manifest:
    rows = [ManifestRow(str(i), uri, None, None, None) for i, uri in enumerate(uris)]
    write_manifest(f"{folder}/m.parquet", rows, None)
    return open_manifest(f"{folder}/m.parquet")


def _mean_size(
    manifest: Manifest, rows: int, all_may_fail: bool = False, own_disk: bool = True
) -> float:
    return check_sampled_images(manifest, rows, all_may_fail=all_may_fail, own_disk=own_disk)


def test_the_mean_size_is_that_of_images_that_exist(tmp_path: Path) -> None:
    for name, size in (("a", 100), ("b", 200)):
        (tmp_path / name).write_bytes(bytes(size))
    manifest = _manifest(tmp_path, [f"{tmp_path}/{name}" for name in ("a", "gone", "b")])
    assert _mean_size(manifest, 3) == 150
    assert _mean_size(manifest, 1) == 100


def test_images_that_moved_are_reported_before_work(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, [f"{tmp_path}/{i}" for i in range(100)])
    message = (
        rf"none of the 16 images checked exist; have they moved\? "
        rf"The first: {tmp_path}/0 does not exist"
    )
    with pytest.raises(UnreadableDataset, match=message):
        _mean_size(manifest, 100)
    with pytest.raises(UnreadableDataset, match="none of the 5 images"):
        _mean_size(manifest, 5)
    assert _mean_size(manifest, 100, all_may_fail=True) == 0
    (tmp_path / "50").write_bytes(b"some")  # one in the middle is enough: the sample is spread
    assert _mean_size(manifest, 100) == 4


def test_the_nodes_of_a_cluster_may_have_their_own_disks(
    tmp_path: Path,
) -> None:
    assert _mean_size(_manifest(tmp_path, ["/mounted/on/the/nodes.jpg"]), 1, own_disk=False) == 0
    with pytest.raises(UnreadableDataset, match="Protocol not known"):
        _mean_size(_manifest(tmp_path, ["nostore://bucket/a.jpg"]), 1)


@pytest.mark.parametrize(
    ("size", "read", "is_missing"),
    [
        (MissingObject("x does not exist"), b"1", False),  # signed for reading only
        (MissingObject("x"), MissingObject("x is gone"), True),
        (AccessDenied("x"), AccessDenied("x"), False),  # the nodes' role may do
        (StorageError("its store does not report its size"), b"1", False),
        (StorageError("no answer"), StorageError("no answer"), False),
    ],
)
def test_a_failing_store_does_not_mean_that_an_image_moved(
    size: Exception, read: bytes | Exception, is_missing: bool, tmp_path: Path
) -> None:
    manifest = _manifest(tmp_path, ["s3://bucket/x"])

    def answer(outcome: bytes | Exception) -> bytes:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "get_size", lambda uri: answer(size))
        patch.setattr(storage, "read_start", lambda uri, count: answer(read))
        if is_missing:
            with pytest.raises(UnreadableDataset, match="The first: x is gone"):
                _mean_size(manifest, 1)
        else:
            assert _mean_size(manifest, 1) == 0


def test_the_check_does_not_wait_for_a_store_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(storage, "get_size", lambda uri: time.sleep(3) if "slow" in uri else 7)
    start = time.monotonic()
    assert _mean_size(_manifest(tmp_path, ["s3://slow/x", "s3://b/y"]), 2) == 7
    assert time.monotonic() - start < 2.5
