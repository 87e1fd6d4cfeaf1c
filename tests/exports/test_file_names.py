"""Names of files from image ids."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UnreadableDataset
from pipeline.exports.file_names import name_file
from pipeline.printable import escape_unprintable

IDS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./\\% \n"), max_size=20)


@given(IDS)
def test_a_name_stays_below_its_folder_and_gives_the_id_again(image_id: str) -> None:
    name = name_file(image_id)
    assert unquote(name) == image_id
    path = posixpath.join("out", name)
    assert posixpath.normpath(path) == path.rstrip("/") or not image_id
    assert escape_unprintable(name) == name
    assert all(part == part.strip() for part in name.split("/"))


@pytest.mark.parametrize(
    ("image_id", "name"),
    [("2007_000027", "2007_000027"), ("sub dir/ä.jpg", "sub dir/ä.jpg"), ("a//b", "a%2F%2Fb")],
)
def test_ordinary_ids_stay_as_they_are(image_id: str, name: str) -> None:
    assert name_file(image_id) == name


def test_a_name_that_no_file_system_takes_is_rejected() -> None:
    with pytest.raises(UnreadableDataset, match="needs a file name of 400 bytes"):
        name_file("ä" * 200)
