"""Files replaced whole: long names, folders that cannot be synced, and killed writers."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.atomic_files import (
    LONGEST_NAME,
    remove_abandoned,
    remove_abandoned_of,
    replace_atomically,
)
from pipeline.errors import MissingObject, StorageError

ANY = re.compile(".*")
DIGITS = "0123456789abcdef" * 2


@pytest.mark.parametrize("name", ["a" * 213, "a" * 214, "a" * LONGEST_NAME, "é" * 127])
def test_names_as_long_as_the_file_system_allows_are_written(tmp_path: Path, name: str) -> None:
    storage.put(f"{tmp_path}/{name}", b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(MissingObject, match="name too long"):
        storage.put(f"{tmp_path}/{'a' * (LONGEST_NAME + 1)}", b"1")


def _fail_folder_sync(patch: pytest.MonkeyPatch, number: int) -> None:
    fsync = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    patch.setattr(os, "fsync", fail_for_folders)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _fail_folder_sync(monkeypatch, number)
    storage.put(f"{tmp_path}/x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_folder_sync(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="Input/output error"):
        storage.put(f"{tmp_path}/x", b"1")


def _start_writer(path: Path) -> subprocess.Popen[bytes]:
    """A process that has written half of a file and waits."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.atomic_files import replace_atomically\n"
        "with replace_atomically(Path(sys.argv[1])) as scratch:\n"
        "    scratch.write_bytes(b'half'); time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not any(p.stat().st_size for p in path.parent.glob(f".{path.name[:20]}*.partial")):
        time.sleep(0.01)
    return writer


def test_only_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    writers = [_start_writer(tmp_path / name) for name in ("first", "second")]
    try:
        os.kill(writers[0].pid, signal.SIGKILL)
        writers[0].wait()
        remove_abandoned(tmp_path, ANY)
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".second."), "the living writer still needs its file"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    remove_abandoned(tmp_path, ANY)
    assert list(tmp_path.iterdir()) == []


def test_files_that_no_writer_here_names_stay(tmp_path: Path) -> None:
    own = f".part-1.{DIGITS}.partial"
    others = [
        "film.mkv.partial",
        f"x.{DIGITS}.partial",
        ".x.123.partial",
        f".mine.{DIGITS}.partial",
    ]
    for name in (own, *others):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f".part-2.{DIGITS}.partial").mkdir()
    remove_abandoned(tmp_path, re.compile(r"part-\d"))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*others, f".part-2.{DIGITS}.partial"}
    remove_abandoned(tmp_path / "missing", ANY)


@pytest.mark.parametrize("name", ["m.parquet", "n" * 250])
def test_the_next_writer_of_a_file_removes_what_killed_writers_of_it_left(
    tmp_path: Path, name: str
) -> None:
    writer = _start_writer(tmp_path / name)
    writer.kill()
    writer.wait()
    (tmp_path / f".another.parquet.{DIGITS}.partial").write_bytes(b"")
    with storage.write_whole(f"{tmp_path}/{name}") as scratch:
        scratch.write_bytes(b"whole")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f".another.parquet.{DIGITS}.partial", name]


def test_a_file_system_without_locks_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a scratch file of a killed writer stays: it may be a living one's."""

    def fail(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    with replace_atomically(tmp_path / "x") as scratch:
        scratch.write_bytes(b"1")
        remove_abandoned_of(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"1"
