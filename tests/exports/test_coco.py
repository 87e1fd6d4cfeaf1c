"""COCO exports, read by pycocotools and by `prepare coco`."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.analysis.evaluation import evaluate
from pipeline.engine.export.run import ExportSettings
from pipeline.exports.coco import list_category_ids
from tests.exports.worlds import CLASSES, World

RESULTS = ExportSettings("coco")


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_pycocotools_scores_the_results_as_we_do(world: World) -> None:
    world.export(RESULTS)
    results = world.output.rename(world.folder / "results") / "results.json"
    world.export_manifest(RESULTS)
    truth = load(world.output / "instances.json")
    with contextlib.redirect_stdout(io.StringIO()):
        scores = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    # COCO knows no difficult objects, so their detections count as false there.
    metrics = evaluate(world.detections, world.manifest)
    per_class = {row.label: row.coco_ap for row in metrics.per_class}
    dog = CLASSES.index("dog")
    precision = scores.eval["precision"][:, :, dog, 0, 2]
    assert precision[precision > -1].mean() == pytest.approx(per_class["dog"], abs=1e-9)
    assert len(scores.cocoDt.anns) == 6


def test_results_have_exact_boxes_and_the_ids_of_the_manifest(world: World) -> None:
    world.export(ExportSettings("coco", min_score=0.65))
    assert world.read_json("results.json") == [
        {"image_id": 7, "category_id": 1, "bbox": [2, 2, 38, 58], "score": 0.9},
        {"image_id": 7, "category_id": 2, "bbox": [12, 10, 78, 80], "score": 0.8},
        {"image_id": 8, "category_id": 1, "bbox": [0, 0, 50, 48], "score": 0.7},
    ]
    ids = (world.output / "image_ids.csv").read_text().splitlines()
    assert ids == ["image_id,id", "07,8", "b/c,9", "empty,10", "broken,11"]


def test_annotations_have_flags_areas_and_files_below_the_root(world: World) -> None:
    world.export_manifest(RESULTS)
    truth = load(world.output / "instances.json")
    assert {i: image["file_name"] for i, image in truth.imgs.items()} == {
        7: "7.jpg",
        8: "07.jpg",
        9: "b/c.jpg",
        10: "empty.jpg",
        11: "broken.jpg",
    }
    first = truth.anns[1]
    assert first["bbox"] == [1.5, 2, 38.75, 58]
    assert first["area"] == 38.75 * 58
    assert [a["ignore"] for a in truth.anns.values()] == [0, 0, 1, 0, 0, 0]
    assert [a["iscrowd"] for a in truth.anns.values()] == [0, 0, 0, 1, 0, 0]
    assert [c["name"] for c in truth.cats.values()] == list(CLASSES)


def test_detections_as_annotations_lack_the_failed_image(world: World) -> None:
    world.export(ExportSettings("coco", as_annotations=True, labels=("cat",)))
    truth = load(world.output / "instances.json")
    assert sorted(truth.imgs) == [7, 8, 9, 10]
    assert [a["score"] for a in truth.anns.values()] == [0.9, 0.3, 0.7, 0.6]
    assert list(truth.anns) == [1, 2, 3, 4]
    left_out = (world.output / "left_out.csv").read_text().splitlines()
    assert left_out[1:] == ["broken,read,UnreadableImage,'=the file is empty"]


def test_category_ids_are_the_manifests_and_further_classes_follow() -> None:
    assert list_category_ids(["cat", "dog"], ["cat", "dog"], [17, 3]) == (17, 3)
    assert list_category_ids(["cat", "dog", "cow"], ["cat", "dog"], [17, 3]) == (17, 3, 18)
    assert list_category_ids(["cat", "dog"], [], None) == (1, 2)
