from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, open_manifest
from pipeline.sources.lvis import open_lvis
from pipeline.sources.options import SourceOptions
from tests.sources.small_datasets import write_image

BASE = "http://images.cocodataset.org/"


def lvis_content() -> dict[str, Any]:
    """Two images of LVIS v1: one of train2017, one of val2017; neither has a file_name."""
    image = {"width": 40, "height": 30, "license": 1, "date_captured": "", "flickr_url": "x"}
    return {
        "info": {},
        "licenses": [],
        "annotations": [
            {
                "id": 1,
                "image_id": 9,
                "category_id": 12,
                "bbox": [1.5, 2, 3, 4],
                "area": 12.0,
                "segmentation": [[1.5, 2, 4.5, 2, 4.5, 6]],
            }
        ],
        "images": [
            {
                **image,
                "id": 9,
                "coco_url": f"{BASE}train2017/000000000009.jpg",
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [12],
            },
            {
                **image,
                "id": 4,
                "coco_url": f"{BASE}val2017/000000000004.jpg",
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            },
        ],
        "categories": [
            {"id": 3, "name": "cat", "synset": "cat.n.01", "frequency": "f", "def": "a cat"},
            {"id": 12, "name": "dog_collar", "synset": "dog_collar.n.01", "frequency": "r"},
        ],
    }


def write_lvis(root: Path, content: Any) -> tuple[str, str]:
    write_image(root / "images" / "train2017" / "000000000009.jpg")
    write_image(root / "images" / "val2017" / "000000000004.jpg")
    (root / "lvis.json").write_text(json.dumps(content))
    return str(root / "lvis.json"), str(root / "images")


def test_the_classes_of_each_image_reach_the_manifest(tmp_path: Path) -> None:
    dataset = open_lvis(*write_lvis(tmp_path, lvis_content()))
    target = str(tmp_path / "manifest.parquet")
    write_manifest(target, dataset.rows, dataset.classes, dataset.category_ids, federated=True)
    manifest = open_manifest(target)
    assert (manifest.classes, manifest.category_ids) == (("cat", "dog_collar"), (3, 12))
    assert manifest.is_federated
    names = ["image_id", "uri"]
    assert manifest.read(0, 2, names).to_pylist() == [
        {"image_id": "9", "uri": f"{tmp_path}/images/train2017/000000000009.jpg"},
        {"image_id": "4", "uri": f"{tmp_path}/images/val2017/000000000004.jpg"},
    ]
    (batch,) = manifest.read_batches(["negative_labels", "not_exhaustive_labels"])
    assert batch.to_pylist() == [
        {"negative_labels": ["cat"], "not_exhaustive_labels": ["dog_collar"]},
        {"negative_labels": [], "not_exhaustive_labels": []},
    ]


def test_boxes_are_read_as_in_coco(tmp_path: Path) -> None:
    nine, four = open_lvis(*write_lvis(tmp_path, lvis_content())).rows
    assert nine.objects == (AnnotatedObject("dog_collar", 1.5, 2, 4.5, 6),)
    assert four.objects == ()


def test_one_folder_of_images_is_enough(tmp_path: Path) -> None:
    annotations, images = write_lvis(tmp_path, lvis_content())
    dataset = open_lvis(annotations, f"{images}/train2017", options=SourceOptions(max_invalid=1))
    assert [row.uri for row in dataset.rows] == [f"{images}/train2017/000000000009.jpg"]


def test_images_may_stay_on_the_web(tmp_path: Path) -> None:
    annotations, _ = write_lvis(tmp_path, lvis_content())
    rows = list(open_lvis(annotations, None).rows)
    assert [row.uri for row in rows] == [
        f"{BASE}train2017/000000000009.jpg",
        f"{BASE}val2017/000000000004.jpg",
    ]
    assert (rows[0].width, rows[0].height) == (40, 30)


def test_unlabelled_images_keep_their_classes(tmp_path: Path) -> None:
    content = lvis_content()
    del content["annotations"]
    row = next(open_lvis(*write_lvis(tmp_path, content), unlabelled=True).rows)
    assert (row.objects, row.negative_labels) == (None, ("cat",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("neg_category_ids", [5], "neg_category_ids names category 5, which categories does not"),
        (
            "neg_category_ids",
            [12],
            "does not show .dog_collar., and an object is of this class",
        ),
        ("neg_category_ids", 3, "field neg_category_ids is 3, expected a list"),
        ("not_exhaustive_category_ids", ["x"], "field not_exhaustive_category_ids is 'x'"),
        ("coco_url", "file:///etc/passwd", "does not exist in"),
        ("coco_url", None, "field file_name is missing"),
    ],
)
def test_errors_name_image_and_field(tmp_path: Path, field: str, value: Any, message: str) -> None:
    content = lvis_content()
    content["images"][0][field] = value
    arguments = write_lvis(tmp_path, content)
    with pytest.raises(UnreadableDataset, match=rf"lvis\.json: image 9.*{message}"):
        list(open_lvis(*arguments, options=SourceOptions(strict=True)).rows)
