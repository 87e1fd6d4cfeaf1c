"""What is looked at before a run: whether the manifest's pictures are there, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.engine import first_look
from pipeline.engine.run_options import RunOptions
from pipeline.errors import StorageError, UnreadableDataset
from pipeline.manifest import Manifest, ManifestRow, open_manifest, write_manifest

ANY = RunOptions()


def _manifest(folder: Path, uris: Sequence[str]) -> Manifest:
    rows = [ManifestRow(str(i), uri, None, None, None) for i, uri in enumerate(uris)]
    write_manifest(f"{folder}/m.parquet", rows, None)
    return open_manifest(f"{folder}/m.parquet")


def test_the_mean_of_those_that_are_there(tmp_path: Path) -> None:
    for name, size in (("a", 100), ("b", 200)):
        (tmp_path / name).write_bytes(bytes(size))
    manifest = _manifest(tmp_path, [f"{tmp_path}/{name}" for name in ("a", "gone", "b")])
    assert first_look.mean_size(manifest, 3, f"{tmp_path}/out", ANY) == 150
    assert first_look.mean_size(manifest, 1, f"{tmp_path}/out", ANY) == 100


def test_pictures_that_moved_are_told_before_work(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, [f"{tmp_path}/{i}" for i in range(100)])
    told = rf"of 16 pictures .* have they moved\? The first: {tmp_path}/0 does not exist"
    with pytest.raises(UnreadableDataset, match=told):
        first_look.mean_size(manifest, 100, f"{tmp_path}/out", ANY)
    with pytest.raises(UnreadableDataset, match="of 5 pictures"):
        first_look.mean_size(manifest, 5, f"{tmp_path}/out", ANY)
    all_may_fail = RunOptions(max_failed_fraction=1)
    assert first_look.mean_size(manifest, 100, f"{tmp_path}/out", all_may_fail) == 0
    (tmp_path / "50").write_bytes(b"some")  # one in the middle is enough: they are spread
    assert first_look.mean_size(manifest, 100, f"{tmp_path}/out", ANY) == 4


def test_an_output_that_is_finished_needs_no_pictures(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path, [f"{tmp_path}/gone"])
    storage.put(f"{tmp_path}/out/summary.json", b"{}")
    assert first_look.mean_size(manifest, 1, f"{tmp_path}/out", ANY) == 0
    for options in (RunOptions(overwrite=True), RunOptions(retry_failed=True)):
        with pytest.raises(UnreadableDataset):
            first_look.mean_size(manifest, 1, f"{tmp_path}/out", options)


@pytest.mark.parametrize(
    ("size", "read", "gone"),
    [
        (storage.MissingObject("x does not exist"), b"1", False),  # signed for reading alone
        (storage.MissingObject("x does not exist"), storage.AccessDenied("denied"), True),
        (StorageError("its store does not tell its size"), b"1", False),
        (StorageError("no answer"), StorageError("no answer"), False),
    ],
)
def test_a_store_in_trouble_is_no_picture_that_moved(
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
            with pytest.raises(UnreadableDataset, match="The first: denied"):
                first_look.mean_size(manifest, 1, f"{tmp_path}/out", ANY)
        else:
            assert first_look.mean_size(manifest, 1, f"{tmp_path}/out", ANY) == 0
