from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.sources.listing import list_files


def _write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


HIDDEN = (
    *(".a.jpg", "sub/.thumbnails/b.jpg", "@eaDir/a.jpg", ".ipynb_checkpoints/c.jpg"),
    *(".Trash-0/files/d.jpg", "__MACOSX/a.jpg"),
)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_hidden_parts_are_left_out_and_counted(tmp_path: Path, place: str) -> None:
    _write(tmp_path, "a.jpg", "sub/b.txt", *HIDDEN)
    root = str(tmp_path)
    if place == "memory":
        root = f"memory://listing-{tmp_path.name}"
        fsspec.filesystem("memory").put(f"{tmp_path}/", f"/listing-{tmp_path.name}", recursive=True)
    listing = list_files(root, hidden=False)
    assert listing.files == ("a.jpg", "sub/b.txt")
    assert listing.left_out == {"hidden": len(HIDDEN)}
    assert len(list_files(root, hidden=True).files) == 2 + len(HIDDEN)


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    _write(root, "z/real/a.jpg")
    _write(tmp_path, "elsewhere/b.jpg")
    (root / "first").symlink_to("../elsewhere")
    (root / "second").symlink_to("../elsewhere")
    (root / "alias").symlink_to("z/real")
    (root / "z" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to("../root")
    (root / "self").symlink_to("self")
    (root / "file.jpg").symlink_to("z/real/a.jpg")
    listing = list_files(str(root), hidden=False)
    assert listing.files == ("file.jpg", "first/b.jpg", "self", "z/real/a.jpg")
    assert listing.links == {
        "alias": "z/real",
        "second": "first",
        "z/up": "",
        "first/back": "",
    }


def test_special_files_are_left_out_and_counted(tmp_path: Path) -> None:
    _write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    listing = list_files(str(tmp_path), hidden=True)
    assert listing.files == ("a.jpg",)
    assert listing.left_out == {"special": 2}


def test_doubled_slashes_lose_no_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 lists bucket//folder as bucket/folder; files are then read from there."""
    store = fsspec.filesystem("memory")
    monkeypatch.setattr(type(store), "isdir", lambda _store, _path: True)
    entries = {"/doubled/deep/a b.jpg": {"type": "file"}, "/doubled/deep/": {"type": "file"}}
    monkeypatch.setattr(type(store), "find", lambda _store, _path, detail: entries)
    listing = list_files("memory://doubled//deep/", hidden=True)
    assert (listing.root, listing.files) == ("memory://doubled/deep", ("a b.jpg",))


@pytest.mark.parametrize(
    "uri",
    [
        "http://alice:canary@127.0.0.1/images/",
        "https://host/images?X-Amz-Signature=canarycanarycanarycanarycanary",
        "ftp://alice:canary@host/images",
    ],
)
def test_a_folder_with_a_password_is_rejected_before_it_is_read(uri: str) -> None:
    with pytest.raises(InvalidConfiguration, match="storage-options") as caught:
        list_files(uri, hidden=False)
    assert "canary" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match="gone is not a folder"):
        list_files(f"{tmp_path}/gone", hidden=False)
