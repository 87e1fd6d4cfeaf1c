from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from pipeline import imaging
from pipeline.errors import InvalidConfiguration, TooManyInvalidImages, UnreadableDataset
from pipeline.image_reader import read_image
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import open_manifest
from pipeline.sources.dataset import Dataset
from pipeline.sources.object_fields import ObjectFields
from pipeline.sources.options import SourceOptions
from pipeline.sources.webdataset import WebDatasetLayout, open_webdataset
from tests.sources.containers import encode_image, write_tar

ANY = SourceOptions(max_invalid=1.0)
STRICT = SourceOptions(strict=True)
WITH_JSON = WebDatasetLayout(objects_key="json")
OBJECTS = json.dumps({"bbox": [[5, 6, 10, 20], [0, 0, 4, 4]], "category": ["dog", "cat"]})


def brightness(dataset: Dataset) -> dict[str, int]:
    """The mean pixel of each image, read as jobs read it."""
    return {
        row.image_id: round(imaging.decode_image(read_image(row.uri, row.member)).mean())
        for row in dataset.rows
    }


def test_images_are_read_where_they_lie(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{n:03d}.jpg": encode_image(n * 10) for n in range(4)})
    write_tar(tmp_path / "b.tar", {"sub/x.001.png": encode_image(99), "sub/x.txt": "a caption"})
    layout = WebDatasetLayout(image_keys=("jpg", "001.png"))
    dataset = open_webdataset([str(tmp_path)], layout)
    assert brightness(dataset) == {"000": 0, "001": 10, "002": 20, "003": 30, "sub/x": 99}
    assert dataset.classes is None
    assert dataset.has_members
    assert dataset.tally.images == 5


def test_the_package_webdataset_writes_what_is_read(tmp_path: Path) -> None:
    with webdataset.ShardWriter(f"{tmp_path}/s-%03d.tar", maxcount=3, verbose=0) as sink:
        for number in range(8):
            pixels = np.full((30, 40, 3), number * 20, np.uint8)
            objects = [{"bbox": [1, 2, 3, 4], "category": "cat"}] * (number % 3)
            sink.write({"__key__": f"k{number}", "jpg": pixels, "json": {"objects": objects}})
    dataset = open_webdataset([f"{tmp_path}/s-{{000..002}}.tar"], WITH_JSON)
    rows = list(dataset.rows)
    assert [row.image_id for row in rows] == [f"k{n}" for n in range(8)]
    assert [len(row.objects or ()) for row in rows] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert dataset.classes == ("cat",)
    first = (rows[1].objects or ())[0]
    assert (first.x1, first.y1, first.x2, first.y2) == (1, 2, 4, 6)
    again = open_webdataset([f"{tmp_path}/s-*.tar"])
    assert list(brightness(again).values()) == pytest.approx([n * 20 for n in range(8)], abs=1)


def test_annotations_lie_beside_their_images(tmp_path: Path) -> None:
    members = {
        "a.json": OBJECTS,
        "a.jpg": encode_image(1),
        "b.jpg": encode_image(2),
        "c.jpg": encode_image(3),
        "c.json": "[]",
    }
    write_tar(tmp_path / "a.tar", members)
    dataset = open_webdataset([f"{tmp_path}/a.tar"], WITH_JSON)
    a, b, c = dataset.rows
    assert [item.label for item in a.objects or ()] == ["dog", "cat"]
    assert (a.objects or ())[0].x2 == 15
    assert (b.objects, c.objects) == (None, ())
    assert dataset.classes == ("cat", "dog")


def test_boxes_may_be_shares_of_the_sides(tmp_path: Path) -> None:
    content = json.dumps({"objects": [{"kind": 1, "box": [0.5, 0.5, 0.5, 0.2]}]})
    write_tar(tmp_path / "a.tar", {"a.jpg": encode_image(1), "a.json": content})
    fields = ObjectFields("kind", "box", "cxcywh", "relative")
    layout = WebDatasetLayout(objects_key="json", fields=fields, classes=("cat", "dog"))
    (row,) = open_webdataset([f"{tmp_path}/a.tar"], layout).rows
    (item,) = row.objects or ()
    assert (item.label, item.x1, item.y1, item.x2, item.y2) == pytest.approx(
        ("dog", 10, 12, 30, 18)
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", r"a\.json is not well-formed JSON"),
        ('{"bbox": [[1, 2, 3, 4]], "category": []}', "1 of bbox|0 of category"),
        ('{"bbox": [[1, 2, 3]], "category": ["cat"]}', "object 0: field bbox is .*four numbers"),
        ('{"bbox": [[1, 2, 3, "x"]], "category": ["cat"]}', "'x', not a number"),
        ('{"boxes": []}', "field category of the objects is missing.*the fields are boxes"),
        ('{"bbox": [[1, 2, 3, null]], "category": ["cat"]}', "field bbox is None, not a number"),
        ("7", "the objects are int 7, expected a list"),
    ],
)
def test_a_damaged_annotation_leaves_its_image_out(
    tmp_path: Path, content: str, expected: str
) -> None:
    members = {"a.jpg": encode_image(1), "a.json": content, "b.jpg": encode_image(2)}
    write_tar(tmp_path / "a.tar", members)
    layout = WebDatasetLayout(objects_key="json", classes=("cat",))
    dataset = open_webdataset([f"{tmp_path}/a.tar"], layout, ANY)
    assert [row.image_id for row in dataset.rows] == ["b"]
    assert dataset.tally.invalid_images == 1
    with pytest.raises(UnreadableDataset, match=rf"a\.tar: a\.json.*{expected}|{expected}"):
        list(open_webdataset([f"{tmp_path}/a.tar"], layout, STRICT).rows)


def test_a_box_that_is_not_finite_is_dropped(tmp_path: Path) -> None:
    boxes = '{"bbox": [[NaN, 2, 3, 4], [1, 2, 3, 4]], "category": ["cat", "cat"]}'
    write_tar(tmp_path / "a.tar", {"a.jpg": encode_image(1), "a.json": boxes})
    dataset = open_webdataset([f"{tmp_path}/a.tar"], WITH_JSON)
    assert [len(row.objects or ()) for row in dataset.rows] == [1]
    assert dataset.tally.describe_repairs() == "1 box dropped: not finite"


def test_links_in_a_tar_file_are_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": encode_image(1)})
    with tarfile.open(path, "a") as tar:
        for name, kind in (("b.jpg", tarfile.SYMTYPE), ("c.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    dataset = open_webdataset([str(path)])
    assert [row.image_id for row in dataset.rows] == ["a"]
    assert dataset.tally.describe_repairs() == (
        "2 tar members without content (link to another): left out"
    )
    with pytest.raises(UnreadableDataset, match=r"a\.tar: 'b\.jpg' -> '/etc/passwd'"):
        list(open_webdataset([str(path)], options=STRICT).rows)


def test_a_file_without_annotations_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("<!doctype html>" * 100)
    with pytest.raises(UnreadableDataset, match=r"a\.tar is no tar file, or damaged"):
        open_webdataset([f"{tmp_path}/a.tar"], WITH_JSON)
    write_tar(tmp_path / "b.tar", {"a.jpg": encode_image(1), "a.json": "{"})
    with pytest.raises(UnreadableDataset, match=r"b\.tar: a\.json is not well-formed JSON"):
        open_webdataset([f"{tmp_path}/b.tar"], WITH_JSON)
    write_tar(tmp_path / "c.tar", {"a.jpg": encode_image(1), "a.txt": "x"})
    with pytest.raises(UnreadableDataset, match=r"hold no object in members \.json"):
        open_webdataset([f"{tmp_path}/c.tar"], WITH_JSON)


def test_an_unreadable_image_is_left_out_and_named(tmp_path: Path) -> None:
    members = {"a.jpg": b"<html>404</html>", "b.jpg": encode_image(2), "c.jpg": b""}
    write_tar(tmp_path / "a.tar", members)
    dataset = open_webdataset([f"{tmp_path}/a.tar"], options=ANY)
    assert [row.image_id for row in dataset.rows] == ["b"]
    assert dataset.tally.invalid_images == 2
    with pytest.raises(TooManyInvalidImages, match=r"2 of 3 images are invalid.*a\.tar: a\.jpg"):
        list(open_webdataset([f"{tmp_path}/a.tar"]).rows)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_file_is_rejected(tmp_path: Path, mode: str) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": encode_image(1)}, mode)
    with pytest.raises(UnreadableDataset, match=r"a\.tar is compressed with .*decompress"):
        list(open_webdataset([f"{tmp_path}/a.tar"], options=ANY).rows)


DAMAGED = "1 tar file damaged: what lies behind the damage is left out"


@pytest.mark.parametrize(
    ("damage", "ids", "reason"),
    [
        (lambda whole: whole[:700], [], "ends in the middle of '0.jpg'"),
        (lambda whole: whole[:1700], ["0"], "is cut off or damaged at byte 1536"),
        (lambda whole: whole[:2500], ["0"], "ends in the middle of '1.jpg'"),
        (lambda whole: whole[:1536] + b"x" * 512 + whole[2048:], ["0"], "damaged at byte 1536"),
        (lambda whole: b"<html>404</html>" * 100, [], "is no tar file, or damaged"),
        (lambda whole: b"", [], "is no tar file, or damaged"),
    ],
    ids=["content", "header", "second", "overwritten", "html", "empty"],
)
def test_what_lies_before_the_damage_of_a_tar_file_is_kept(
    damage: Callable[[bytes], bytes], ids: list[str], reason: str, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.jpg": encode_image(n) for n in range(3)})
    path.write_bytes(damage(path.read_bytes()))
    write_tar(tmp_path / "b.tar", {"b.jpg": encode_image(7)})
    tars = [str(path), f"{tmp_path}/b.tar"]
    dataset = open_webdataset(tars, options=SourceOptions(max_invalid=0.5))
    assert [row.image_id for row in dataset.rows] == [*ids, "b"]
    assert dataset.tally.describe_repairs() == DAMAGED
    with pytest.raises(UnreadableDataset, match=rf"a\.tar .*{reason}.*damaged: what lies"):
        list(open_webdataset(tars, options=STRICT).rows)
    with pytest.raises(TooManyInvalidImages, match="1 of 2 tar files are damaged"):
        list(open_webdataset(tars).rows)


def test_the_last_sample_before_the_damage_may_lack_its_annotation(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for number in range(3):
        members |= {f"{number}.jpg": encode_image(number), f"{number}.json": OBJECTS}
    path = write_tar(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[: 512 * 9])
    layout = WebDatasetLayout(objects_key="json", classes=("cat", "dog"))
    dataset = open_webdataset([str(path)], layout, ANY)
    assert [row.image_id for row in dataset.rows] == ["0"]
    assert dataset.tally.describe_repairs() == f"1 image invalid: left out; {DAMAGED}"


def test_tar_files_without_an_end_or_an_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{n}.jpg": encode_image(n) for n in range(3)})
    whole = path.read_bytes()
    path.write_bytes(whole[:3072])  # between two members
    dataset = open_webdataset([str(path)])
    assert [row.image_id for row in dataset.rows] == ["0", "1"]
    assert dataset.tally.describe_repairs() == (
        "1 tar file without the mark of its end: it may be cut off"
    )
    write_tar(path, {"a.txt": "text"})
    with pytest.raises(UnreadableDataset, match=r"a\.tar: a has no image, only \.txt"):
        list(open_webdataset([str(path)], options=STRICT).rows)


def test_tar_files_that_number_alike_need_prefixes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", {"0.jpg": encode_image(7)})
    tars = [f"{tmp_path}/*.tar"]
    with pytest.raises(UnreadableDataset, match=r"'0' occurs twice .*--prefix-ids"):
        write_manifest(f"{tmp_path}/m.parquet", open_webdataset(tars).rows, None, has_members=True)
    layout = WebDatasetLayout(prefix_ids=True)
    rows = open_webdataset(tars, layout).rows
    write_manifest(f"{tmp_path}/m.parquet", rows, None, has_members=True)
    table = open_manifest(f"{tmp_path}/m.parquet").read(0, 2, ["image_id"])
    assert table["image_id"].to_pylist() == ["a/0", "b/0"]


def test_patterns_name_their_files(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"s-{number:02d}.tar", {f"{number}.jpg": encode_image(number)})
    for pattern in ("s-{00..02}.tar", "s-*.tar", "s-0?.tar", "s-{00,01,02}.tar"):
        dataset = open_webdataset([f"{tmp_path}/{pattern}"])
        assert [row.image_id for row in dataset.rows] == ["0", "1", "2"]
    with pytest.raises(UnreadableDataset, match=r"x-\*\.tar names no file"):
        open_webdataset([f"{tmp_path}/x-*.tar"])
    with pytest.raises(UnreadableDataset, match=r"\{9\.\.1\} is no range"):
        open_webdataset([f"{tmp_path}/x-{{9..1}}.tar"])
    with pytest.raises(InvalidConfiguration, match="password"):
        open_webdataset(["http://user:secret@host/a.tar"])
