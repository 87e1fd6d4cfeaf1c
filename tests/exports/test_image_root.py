"""The folder that all images are in."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.exports.image_root import find_image_root, get_relative_path, strip_secrets


@pytest.mark.parametrize(
    ("batches", "root"),
    [
        ([["/d/a/1.jpg", "/d/a/2.jpg"]], "/d/a/"),
        ([["/d/a/1.jpg"], ["/d/ab/2.jpg"]], "/d/"),
        ([["/d/a/1.jpg"], ["/d/a/x/2.jpg"]], "/d/a/"),
        ([["s3://b/x/1.jpg", "s3://b/y/2.jpg"]], "s3://b/"),
        ([["s3://b/x/1.jpg", "s3://c/x/1.jpg"]], None),
        ([["s3://b/x/1.jpg", "/d/1.jpg"]], None),
        ([["/a.jpg", "/b.jpg"]], None),
        ([["/d/same.jpg", "/d/same.jpg"]], "/d/"),
        ([[]], None),
    ],
)
def test_the_deepest_common_folder(batches: list[list[str]], root: str | None) -> None:
    assert find_image_root(pa.array(batch, pa.string()) for batch in batches) == root


def test_paths_below_it() -> None:
    assert get_relative_path("/d/a/x/1.jpg", "/d/a/") == "x/1.jpg"
    assert get_relative_path("/d/a/x/1.jpg", None) is None


def test_signatures_are_left_out() -> None:
    uris = pa.array(["https://h/a.jpg?sig=abcdefabcdefabcdefabcdef", "/d/a.jpg"])
    assert strip_secrets(uris).to_pylist() == ["https://h/a.jpg", "/d/a.jpg"]
