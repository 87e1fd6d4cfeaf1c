from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidBox, TooManyInvalidImages, UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow, open_manifest
from pipeline.sources.checking import stack_boxes
from pipeline.sources.coco import open_coco
from pipeline.sources.options import SourceOptions
from pipeline.sources.tally import Tally
from tests.sources.small_datasets import coco_content, write_coco


def test_rows_hold_classes_and_category_ids(tmp_path: Path) -> None:
    dataset = open_coco(*write_coco(tmp_path, coco_content()))
    seven, three = dataset.rows
    assert (seven.image_id, seven.uri) == ("7", str(tmp_path / "images" / "seven.jpg"))
    assert seven.objects == (
        AnnotatedObject("dog", 1, 2, 4.5, 6),
        AnnotatedObject("person", 0, 0, 40, 30, crowd=True),
    )
    assert three.objects == ()
    assert dataset.classes == ("person", "dog")
    assert dataset.category_ids == (1, 18)
    assert dataset.tally.crowd == 1


def test_category_ids_reach_the_manifest(tmp_path: Path) -> None:
    dataset = open_coco(*write_coco(tmp_path, coco_content()))
    target = str(tmp_path / "manifest.parquet")
    write_manifest(target, dataset.rows, dataset.classes, dataset.category_ids)
    opened = open_manifest(target)
    assert opened.classes == ("person", "dog")
    assert opened.category_ids == (1, 18)


def test_a_missing_size_comes_from_the_image_header(tmp_path: Path) -> None:
    content = coco_content()
    del content["images"][1]["width"]
    rows = list(open_coco(*write_coco(tmp_path, content)).rows)
    assert (rows[1].width, rows[1].height) == (20, 10)


def test_boxes_without_area_are_dropped_and_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [3, 3, 0, 5]
    dataset = open_coco(*write_coco(tmp_path, content))
    assert [item.label for item in next(dataset.rows).objects or ()] == ["person"]
    assert dataset.tally.dropped_boxes == 1


def _without(*path: Any) -> Callable[[dict[str, Any]], None]:
    def damage(content: dict[str, Any]) -> None:
        place: Any = content
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return damage


def _with(value: Any, *path: Any) -> Callable[[dict[str, Any]], None]:
    def damage(content: dict[str, Any]) -> None:
        place: Any = content
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("images"), "field images is missing"),
        (_with([], "images"), "field images is empty"),
        (_without("categories"), "field categories is missing"),
        (_with({}, "categories"), "field categories is not a list"),
        (_without("annotations"), "field annotations is missing; .*unlabelled"),
        (_with(3, "images", 0, "id"), "image id 3 occurs twice"),
        (
            _with(18, "categories", 1, "id"),
            "category 1: id 18 occurs twice, for 'dog' and 'person'",
        ),
        (_with("dog", "categories", 1, "name"), "name 'dog' occurs twice, for the ids 1, 18"),
        (
            _with("cat\ud83d", "categories", 1, "name"),
            "category 1: field name .* not valid Unicode",
        ),
        (_with(["cat"], "categories", 1, "name"), "category 1: field name .* expected a text"),
        (_with(True, "categories", 1, "id"), "category 1: field id is True"),
        (_with(10**30, "categories", 1, "id"), "category 1: field id .*expected an integer"),
        (_with(99, "annotations", 1, "category_id"), r"\(annotation 2\) is of category 99"),
        (_with({"x": 1}, "annotations", 1, "category_id"), "field category_id is"),
        (_with("maybe", "annotations", 1, "iscrowd"), "field iscrowd is 'maybe'"),
        (_with("\ud800", "images", 0, "id"), "image number 0: field id .* not valid Unicode"),
        (_with("\ud800.jpg", "images", 0, "file_name"), "field file_name .* not valid Unicode"),
        (_with(["seven.jpg"], "images", 0, "file_name"), "field file_name .* expected a text"),
        (
            _with({"1": 0, "2": 0, "30": 0, "40": 0}, "annotations", 0, "bbox"),
            "expected four numbers",
        ),
        (_with([True] * 4, "annotations", 0, "bbox"), "expected four numbers"),
        (_with(["1", "2", "3", "4"], "annotations", 0, "bbox"), "expected four numbers"),
        (_with([[1, 2, 3, 4]], "annotations", 0, "bbox"), "expected four numbers"),
        (_without("annotations", 0, "bbox"), r"image 7, object 0 .*field bbox is missing"),
        (_with([1, 2, 3], "annotations", 0, "bbox"), "expected four numbers"),
        (_with("1234567", "annotations", 0, "bbox"), "expected four numbers"),
        (_without("images", 0, "file_name"), "image 7: field file_name is missing"),
        (_with("gone.jpg", "images", 0, "file_name"), r"image 7: gone\.jpg does not exist in"),
        (_with("../seven.jpg", "images", 0, "file_name"), "leaves the dataset's folder"),
    ],
)
def test_errors_name_file_and_field(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = coco_content()
    damage(content)
    with pytest.raises(UnreadableDataset, match=rf"instances\.json.*{message}"):
        list(open_coco(*write_coco(tmp_path, content)).rows)


@pytest.mark.parametrize(
    ("bbox", "fault"),
    [
        ([30, 5, -3, 4], "inverted"),
        ([40, 5, 3, 4], "outside the image"),
        ([5, 5, 3, 0], "no area"),
        ([float("nan"), 5, 3, 4], "not finite"),
        ([0, 0, float("inf"), 4], "not finite"),
    ],
)
def test_a_box_that_shows_nothing_is_dropped_alone(
    tmp_path: Path, bbox: list[float], fault: str
) -> None:
    content = coco_content()
    content["annotations"][1]["bbox"] = bbox
    place = write_coco(tmp_path, content)
    dataset = open_coco(*place)
    assert [item.label for item in next(dataset.rows).objects or ()] == ["dog"]
    assert dataset.tally.describe_repairs() == f"1 box dropped: {fault}"
    with pytest.raises(InvalidBox, match=rf"image 7: the box of object 1 \(person\) .*{fault}"):
        list(open_coco(*place, options=SourceOptions(strict=True)).rows)


def test_a_box_that_reaches_out_is_clipped_and_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0]["bbox"] = [-2, 3, 10, 90]
    dataset = open_coco(*write_coco(tmp_path, content))
    assert (next(dataset.rows).objects or ())[0] == AnnotatedObject("dog", 0, 3, 8, 30)
    assert dataset.tally.describe_repairs() == "1 box clipped to the image"


@pytest.mark.parametrize("crowd", ["0", "false", float("nan"), 0.0, None, "", "No"])
def test_a_crowd_is_what_says_so(tmp_path: Path, crowd: Any) -> None:
    content = coco_content()
    content["annotations"][1]["iscrowd"] = crowd
    dataset = open_coco(*write_coco(tmp_path, content))
    assert not any(item.crowd for item in next(dataset.rows).objects or ())
    assert dataset.tally.repairs.total() == 0


@pytest.mark.parametrize(
    ("fields", "difficult"),
    [
        ({"ignore": 1}, True),
        ({"difficult": "true"}, True),
        ({"ignore": 0, "difficult": None}, False),
        ({"ignore": "1", "difficult": 1.0}, True),
    ],
)
def test_ignored_objects_are_difficult(
    tmp_path: Path, fields: dict[str, Any], difficult: bool
) -> None:
    content = coco_content()
    content["annotations"][0].update(fields)
    objects = next(open_coco(*write_coco(tmp_path, content)).rows).objects or ()
    assert [item.difficult for item in objects] == [difficult, False]


def test_flags_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][0].update({"ignore": 1, "difficult": 0})
    with pytest.raises(TooManyInvalidImages, match="ignore is 1, but difficult is 0"):
        list(open_coco(*write_coco(tmp_path, content)).rows)


@pytest.mark.parametrize("write", [int, float, str, lambda number: f"{number}.0"])
@pytest.mark.parametrize("place", ["images", "categories", "image_id", "category_id"])
def test_ids_match_however_they_are_written(
    tmp_path: Path, write: Callable[[int], Any], place: str
) -> None:
    content = coco_content()
    field = "id" if place in content else place
    for record in content.get(place, content["annotations"]):
        record[field] = write(record[field])
    dataset = open_coco(*write_coco(tmp_path, content))
    seven, three = dataset.rows
    assert (seven.image_id, three.image_id) == ("7", "3")
    assert [item.label for item in seven.objects or ()] == ["dog", "person"]
    assert dataset.category_ids == (1, 18)


def test_an_annotation_of_an_image_that_is_not_listed_is_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][1]["image_id"] = 99
    dataset = open_coco(*write_coco(tmp_path, content))
    assert [len(row.objects or ()) for row in dataset.rows] == [1, 0]
    assert dataset.tally.describe_repairs() == "1 box dropped: its image is not listed"


def test_an_unused_group_beside_the_class_of_its_name_is_left_out(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})
    content["categories"][1]["supercategory"] = "dog"
    place = write_coco(tmp_path, content)
    for unlabelled in (False, True):
        dataset = open_coco(*place, unlabelled=unlabelled)
        assert (dataset.classes, dataset.category_ids) == (("person", "dog"), (1, 18))
        assert dataset.tally.describe_repairs() == (
            "1 category unused beside another of the same name: left out"
        )


def test_exact_repetitions_are_read_once(tmp_path: Path) -> None:
    content = coco_content()
    for field in ("images", "annotations", "categories"):
        content[field].append(dict(content[field][0]))
    place = write_coco(tmp_path, content)
    dataset = open_coco(*place)
    assert [len(row.objects or ()) for row in dataset.rows] == [2, 0]
    assert dataset.tally.describe_repairs() == (
        "1 annotation listed again: left out there; 1 category listed again: left out there; "
        "1 image listed again: left out there"
    )
    with pytest.raises(UnreadableDataset, match="listed again"):
        open_coco(*place, options=SourceOptions(strict=True))


def test_a_file_of_two_ids_is_counted(tmp_path: Path) -> None:
    content = coco_content()
    content["images"].append({**content["images"][0], "id": 8})
    dataset = open_coco(*write_coco(tmp_path, content))
    assert [len(row.objects or ()) for row in dataset.rows] == [2, 0, 0]
    assert dataset.tally.describe_repairs() == (
        "2 images whose file an image of another id names too: both are kept"
    )


def test_two_images_of_one_id_are_both_left_out(tmp_path: Path) -> None:
    content = coco_content()
    content["images"].append({**content["images"][0], "file_name": "three.png"})
    dataset = open_coco(*write_coco(tmp_path, content), options=SourceOptions(max_invalid=1.0))
    assert [row.image_id for row in dataset.rows] == ["3"]
    assert dataset.tally.invalid_images == 2


def test_annotations_of_one_id_but_other_boxes_all_stay(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"][1]["id"] = 1
    assert len(next(open_coco(*write_coco(tmp_path, content)).rows).objects or ()) == 2


@pytest.mark.parametrize("missing", [None, [], ""])
def test_a_segmentation_gives_its_hull_box(tmp_path: Path, missing: Any) -> None:
    content = coco_content()
    polygons = [[10, 12, 20.5, 12, 20.5, 22], [4, 20, 6, 20, 6, 25]]
    content["annotations"][0].update(bbox=missing, segmentation=polygons)
    dataset = open_coco(*write_coco(tmp_path, content))
    assert (next(dataset.rows).objects or ())[0] == AnnotatedObject("dog", 4, 12, 20.5, 25)
    assert dataset.tally.describe_repairs() == "1 box taken from the hull of its segmentation"


def test_a_field_that_is_stated_twice_is_rejected(tmp_path: Path) -> None:
    text = json.dumps(coco_content())[:-1] + ', "annotations": []}'
    with pytest.raises(UnreadableDataset, match="'annotations' occurs twice"):
        open_coco(*write_coco(tmp_path, text))


def test_many_categories_and_objects_take_linear_time(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [{"id": i, "name": f"c{i}"} for i in range(20_000)]
    box = {"id": 0, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content["annotations"] = [{**box, "bbox": [1, 2, 3, i / 1e4 + 1]} for i in range(20_000)]
    place = write_coco(tmp_path, content)
    began = time.process_time()
    dataset = open_coco(*place)
    assert len(next(dataset.rows).objects or ()) == 20_000
    assert time.process_time() - began < 8


@pytest.mark.parametrize(("text", "message"), [("{", "well-formed JSON"), ("[1]", "a JSON list")])
def test_malformed_json_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UnreadableDataset, match=message):
        open_coco(*write_coco(tmp_path, text))


def test_invalid_images_are_skipped_on_request(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = "gone.jpg"
    dataset = open_coco(*write_coco(tmp_path, content), options=SourceOptions(max_invalid=1.0))
    assert [row.image_id for row in dataset.rows] == ["3"]
    assert dataset.tally.invalid_images == 1


def test_a_file_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    content = coco_content()
    del content["annotations"]
    dataset = open_coco(*write_coco(tmp_path, content), unlabelled=True)
    assert [row.objects for row in dataset.rows] == [None, None]
    assert dataset.classes == ("person", "dog")


def test_images_may_stay_on_the_web(tmp_path: Path) -> None:
    content = coco_content()
    link = "http://images.cocodataset.org/train2017/{}.jpg"
    for record in content["images"]:
        del record["file_name"]
        record["coco_url"] = link.format(record["id"])
    annotations, _ = write_coco(tmp_path, content)
    seven, three = open_coco(annotations, None).rows
    assert (seven.uri, three.uri) == (link.format(7), link.format(3))
    assert (seven.image_id, seven.width, len(seven.objects or ())) == ("7", 40, 2)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (None, "field coco_url is missing"),
        ("/etc/passwd", "no address on the web or in a store; pass the folder"),
        ("file:///etc/passwd", "no address on the web"),
        ("simplecache::http://host/a.jpg", "no address on the web"),
        ("https://host/a.jpg?X-Amz-Signature=abcdef", "with a password or signature"),
        ("https://alice:canary@host/a.jpg", "with a password or signature"),
    ],
)
def test_only_images_on_the_web_or_in_a_store_need_no_folder(
    tmp_path: Path, link: Any, message: str
) -> None:
    content = coco_content()
    content["images"][0]["coco_url"] = link
    annotations, _ = write_coco(tmp_path, content)
    with pytest.raises(UnreadableDataset, match=rf"image 7: .*{message}") as caught:
        list(open_coco(annotations, None, options=SourceOptions(strict=True)).rows)
    assert "canary" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_ids_may_be_texts_and_category_ids_sparse(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = "img-é/7"
    content["annotations"][1]["image_id"] = "img-é/7"
    content["categories"][0]["id"] = content["annotations"][0]["category_id"] = 900_000_001
    dataset = open_coco(*write_coco(tmp_path, content))
    row = next(dataset.rows)
    assert (row.image_id, len(row.objects or ())) == ("img-é/7", 2)
    assert dataset.category_ids == (1, 900_000_001)


def test_annotations_may_come_before_images_and_in_any_order(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"].insert(
        1, {"id": 5, "image_id": 3, "category_id": 1, "bbox": [1, 1, 2, 2]}
    )
    reordered = {name: content[name] for name in ("annotations", "categories", "images")}
    seven, three = open_coco(*write_coco(tmp_path, reordered)).rows
    assert [item.label for item in seven.objects or ()] == ["dog", "person"]
    assert [item.label for item in three.objects or ()] == ["person"]


def test_plain_objects_are_read_as_all_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [
        [1, 2, 3, 4],
        [0.5, 1.25, 7.1, 20],
        [-3, 2, 9, 9],
        [30.2, 20.7, 90, 0.01],
        [1, 1, 0, 5],
    ]
    content = coco_content()
    content["annotations"] = [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": crowd}
        for image, crowds in ((7, (0, 1)), (3, (0, 1, "0", None)))
        for number, (box, crowd) in enumerate(product(boxes, crowds), 100 * image)
    ]
    content["annotations"][-1].update(ignore=1)
    arguments = write_coco(tmp_path, content)

    def read() -> tuple[list[ManifestRow], Tally]:
        dataset = open_coco(*arguments, options=SourceOptions(max_invalid=1.0))
        return list(dataset.rows), dataset.tally

    plain = read()
    monkeypatch.setattr("pipeline.sources.coco._build_plain_objects", lambda *_: None)
    monkeypatch.setattr("pipeline.sources.checking._are_clearly_inside", lambda *_: False)
    rows, tally = read()
    assert tally == plain[1]
    assert [len(row.objects or ()) for row in rows] == [8, 12]
    for one, other in zip(rows, plain[0], strict=True):
        general, simple = stack_boxes(one.objects or ()), stack_boxes(other.objects or ())
        assert simple == pytest.approx(general, rel=1e-6)  # the general reader rounds to float32
        kinds = [[(o.label, o.difficult, o.crowd) for o in r.objects or ()] for r in (one, other)]
        assert kinds[0] == kinds[1]
