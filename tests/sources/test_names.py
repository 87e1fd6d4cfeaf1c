from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.sources.listing import Listing, list_files
from pipeline.sources.names import FileNames, check_inside


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("a.jpg", "a.jpg"),
        ("./sub//a.jpg", "sub/a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("sub/../a.jpg", "a.jpg"),
        ("a..b.jpg", "a..b.jpg"),
        ("cam::01.jpg", "cam::01.jpg"),
        ("ä b (1).jpg", "ä b (1).jpg"),
    ],
)
def test_paths_inside_the_dataset_are_cleaned(path: str, cleaned: str) -> None:
    assert check_inside(path, "file") == cleaned


@pytest.mark.parametrize(
    "path",
    ["..", "../a", "a/../../b", "/a", "\\a", "a\\..\\..\\b", "c:/a", "C:\\a", "s3://b/a", "."],
)
def test_paths_outside_the_dataset_are_rejected(path: str) -> None:
    with pytest.raises(UnreadableDataset, match=r"file names .* leaves"):
        check_inside(path, "file")


def test_a_rejected_path_shows_no_password() -> None:
    with pytest.raises(UnreadableDataset) as caught:
        check_inside("s3://user:canary@bucket/a.jpg", "file")
    assert "canary" not in str(caught.value)


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é ü.jpg") for form in ("NFC", "NFD"))
NAMES = FileNames(
    Listing("/root", ("a.jpg", "b.JPG", "sub/c.png", "x\\y.jpg", DECOMPOSED, "D.Tif"))
)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("a.JPG", "a.jpg"),
        ("b.jpg", "b.JPG"),
        ("sub\\c.PNG", "sub/c.png"),
        ("x\\y.jpg", "x\\y.jpg"),
        (COMPOSED, DECOMPOSED),
        ("D.tif", "D.Tif"),
        ("d.tif", None),
        ("A.jpg", None),
        ("c.png", None),
    ],
)
def test_a_name_is_found_in_any_spelling(written: str, stored: str | None) -> None:
    assert NAMES.find(written) == stored


def test_a_name_that_fits_two_files_is_rejected_unless_one_is_exact() -> None:
    names = FileNames(Listing("/root", ("a.jpg", "a.JPG")))
    assert names.find("a.JPG") == "a.JPG"
    with pytest.raises(
        UnreadableDataset, match=r"'a\.Jpg', which may be any of 'a\.JPG', 'a\.jpg'"
    ):
        names.find("a.Jpg")


def test_names_through_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "root" / "real" / "a.jpg").write_bytes(b"")
    (tmp_path / "root" / "alias").symlink_to("real")
    (tmp_path / "root" / "real" / "loop").symlink_to("../real")
    names = FileNames(list_files(f"{tmp_path}/root", hidden=True))
    assert names.find("alias/a.jpg") == "real/a.jpg"
    assert names.find("alias/loop/loop/a.JPG") == "real/a.jpg"
    assert names.find("alias/b.jpg") is None
