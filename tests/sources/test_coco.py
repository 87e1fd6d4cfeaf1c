from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InvalidBox, UnreadableDataset
from pipeline.manifests import AnnotatedObject, open_manifest, write_manifest
from pipeline.sources.coco import open_coco
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
    assert dataset.counts.crowd == 1


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
    assert dataset.counts.dropped_boxes == 1


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
        (_with(18, "categories", 1, "id"), "category 1: id 18 or name 'person' occurs twice"),
        (_with(99, "annotations", 1, "image_id"), "annotation 2 is of image 99"),
        (_with(99, "annotations", 1, "category_id"), "annotation 2 is of category 99"),
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
    [([30, 5, -3, 4], "is inverted"), ([50, 5, 3, 4], "is wholly outside")],
)
def test_impossible_boxes_are_named(tmp_path: Path, bbox: list[float], fault: str) -> None:
    content = coco_content()
    content["annotations"][1]["bbox"] = bbox
    with pytest.raises(InvalidBox, match=rf"image 7: the box of object 1 \(person\) {fault}"):
        list(open_coco(*write_coco(tmp_path, content)).rows)


@pytest.mark.parametrize(("text", "message"), [("{", "well-formed JSON"), ("[1]", "a JSON list")])
def test_malformed_json_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UnreadableDataset, match=message):
        open_coco(*write_coco(tmp_path, text))


def test_invalid_images_are_skipped_on_request(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = "gone.jpg"
    dataset = open_coco(*write_coco(tmp_path, content), skip_invalid=True)
    assert [row.image_id for row in dataset.rows] == ["3"]
    assert dataset.counts.skipped_images == 1


def test_a_file_without_annotations_is_unlabelled(tmp_path: Path) -> None:
    content = coco_content()
    del content["annotations"]
    dataset = open_coco(*write_coco(tmp_path, content), unlabelled=True)
    assert [row.objects for row in dataset.rows] == [None, None]
    assert dataset.classes == ("person", "dog")
