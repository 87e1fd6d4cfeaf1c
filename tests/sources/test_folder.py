from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from pipeline import imaging
from pipeline.errors import StorageError, TooManyInvalidImages, UnreadableDataset
from pipeline.sources.folder import open_folder
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    write_image(root / "b.PNG", 11, 12)
    write_image(root / "deep" / "er" / "an image.jpg", 13, 14)
    (root / "readme.txt").write_text("not an image")
    (root / "._b.png").write_bytes(b"a resource file of macOS")
    return root


def test_images_at_all_depths_are_listed(folder: Path) -> None:
    dataset = open_folder(str(folder))
    rows = [(r.image_id, r.uri, r.width, r.height, r.objects) for r in dataset.rows]
    assert rows == [
        ("b.PNG", f"{folder}/b.PNG", 11, 12, None),
        ("deep/er/an image.jpg", f"{folder}/deep/er/an image.jpg", 13, 14, None),
    ]
    assert dataset.classes is None
    assert dataset.tally.images == 2


def test_a_folder_may_be_in_an_object_store(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{folder}/", "/folder-in-memory/", recursive=True)
    rows = list(open_folder("memory://folder-in-memory/").rows)
    assert [(row.image_id, row.width) for row in rows] == [
        ("b.PNG", 11),
        ("deep/er/an image.jpg", 13),
    ]
    assert rows[0].uri == "memory://folder-in-memory/b.PNG"


def test_an_unreadable_image_is_named_or_skipped(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"")
    with pytest.raises(TooManyInvalidImages, match=r"1 of 3 .*a\.jpg: the file is empty"):
        list(open_folder(str(folder)).rows)
    dataset = open_folder(str(folder), SourceOptions(max_invalid=0.5))
    assert len(list(dataset.rows)) == 2
    assert dataset.tally.invalid_images == 1


def test_a_header_behind_large_metadata_is_found(tmp_path: Path) -> None:
    write_image(tmp_path / "x.jpg", 21, 22)
    plain = (tmp_path / "x.jpg").read_bytes()
    comment = b"\xff\xfe\xff\xff" + b"x" * (0xFFFF - 2)
    (tmp_path / "x.jpg").write_bytes(plain[:2] + 3 * comment + plain[2:])
    assert imaging.read_size((tmp_path / "x.jpg").read_bytes()) == (21, 22)
    assert next(open_folder(str(tmp_path)).rows).width == 21


def test_an_empty_or_missing_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableDataset, match="holds no images"):
        open_folder(str(tmp_path / "empty"))
    with pytest.raises(StorageError, match="gone is not a folder"):
        open_folder(str(tmp_path / "gone"))
