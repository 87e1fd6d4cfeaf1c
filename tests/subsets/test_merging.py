"""Merged manifests: classes, repeated images, federated columns, notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.subsets.class_maps import ClassMap
from pipeline.subsets.merging import open_merge
from tests.outputs import make_object, write_annotations

BOX = (1, 2, 30, 40)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    first = {"1": [make_object("dog", BOX)], "2": []}
    second = {"2": [make_object("cat", BOX)], "3": [make_object("dog", BOX, difficult=True)]}
    return (
        write_annotations(str(tmp_path / "a.parquet"), first, ["dog"]),
        write_annotations(
            str(tmp_path / "b.parquet"),
            second,
            ["cat", "dog"],
            uris={"2": "/elsewhere/2.jpg"},
        ),
    )


def _merge(
    pair: tuple[str, str], maps: tuple[ClassMap, ClassMap] = ({}, {}), **options: object
) -> tuple[list[ManifestRow], object]:
    merge = open_merge([open_manifest(uri) for uri in pair], maps, **options)  # type: ignore[arg-type]
    return list(merge.read_rows()), merge


def test_a_repeated_image_id_is_named_or_the_first_one_kept(pair: tuple[str, str]) -> None:
    with pytest.raises(
        InvalidConfiguration, match=r"image_id '2' is in .*a.parquet and .*b.parquet"
    ):
        _merge(pair)
    rows, merge = _merge(pair, repeated="first")
    assert [row.image_id for row in rows] == ["1", "2", "3"]
    assert (merge.tally.repeated, merge.tally.differing) == (1, 1)  # type: ignore[attr-defined]


def test_one_file_under_two_ids_is_repeated_too(tmp_path: Path) -> None:
    uris = {"x": "/images/1.jpg"}
    pair = (
        write_annotations(str(tmp_path / "a.parquet"), {"1": []}, ["dog"]),
        write_annotations(str(tmp_path / "b.parquet"), {"x": []}, ["dog"], uris=uris),
    )
    with pytest.raises(InvalidConfiguration, match="one file under two image_ids"):
        _merge(pair)


def test_prefixes_keep_both(pair: tuple[str, str]) -> None:
    rows, _ = _merge(pair, prefix_ids=True)
    assert [row.image_id for row in rows] == ["a/1", "a/2", "b/2", "b/3"]


def test_maps_rename_and_leave_out(pair: tuple[str, str]) -> None:
    rows, merge = _merge(pair, ({"dog": "animal"}, {"dog": "animal", "cat": None}), prefix_ids=True)
    assert merge.contents.classes == ("animal",)  # type: ignore[attr-defined]
    assert [[item.label for item in row.objects or ()] for row in rows] == [
        ["animal"],
        [],
        [],
        ["animal"],
    ]
    assert rows[3].objects is not None
    assert rows[3].objects[0].difficult
    assert merge.tally.left_out_objects == 1  # type: ignore[attr-defined]


def test_classes_of_one_manifest_only_are_noted_or_recorded(pair: tuple[str, str]) -> None:
    _, merge = _merge(pair, prefix_ids=True)
    assert "a.parquet is not annotated for cat" in merge.notes[0]  # type: ignore[attr-defined]
    rows, merge = _merge(pair, prefix_ids=True, federated=True)
    assert merge.notes == ()  # type: ignore[attr-defined]
    assert [row.negative_labels for row in rows] == [(), ("dog",), ("dog",), ("cat",)]


def test_manifests_that_are_decoded_differently_are_rejected(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    from pipeline.imaging import Decoding
    from pipeline.manifest_writer import write_manifest

    other = str(tmp_path / "c.parquet")
    row = ManifestRow("9", "/images/9.jpg", 10, 10, ())
    write_manifest(other, [row], ["dog"], decoding=Decoding("apply"))
    with pytest.raises(InvalidConfiguration, match=r"--exif ignore .* --exif apply"):
        _merge((pair[0], other))
