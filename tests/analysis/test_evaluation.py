import json
import math

import pytest

from pipeline import shards
from pipeline.analysis.evaluation import evaluate
from pipeline.errors import UnreadableDataset
from pipeline.manifests import open_manifest
from tests.outputs import (
    Failure,
    an_object,
    write_annotations,
    write_detections,
    write_proposals,
)

A, B = (0, 0, 10, 10), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path):
    return write_annotations(
        str(tmp_path / "manifest.parquet"),
        {
            "one": [an_object("cat", A), an_object("dog", B)],
            "two": [an_object("cat", A), an_object("cat", B, difficult=True)],
            "three": [],
            "four": [an_object("cat", A)],
            "five": [an_object("dog", A, crowd=True)],
        },
        ("cat", "dog", "emu"),
    )


DETECTED = {
    "one": [("cat", 0.9, A), ("dog", 0.8, A)],
    "two": [("cat", 0.7, A), ("cat", 0.6, B)],
    "three": [("dog", 0.5, A)],
    "four": Failure("UnreadableImage", "decode"),
    "five": [("dog", 0.4, B), ("dog", 0.3, A)],
}


def detected(tmp_path, manifest, images=None, classes=("cat", "dog", "emu"), **options):
    return write_detections(
        str(tmp_path / "detections"), manifest, images or DETECTED, classes, **options
    )


def test_by_hand(tmp_path, manifest):
    metrics = evaluate(detected(tmp_path, manifest), manifest)
    cat, dog, emu = metrics.per_class
    # Cats: true, true, one ignored; the failed image's cat is missed: recall 2/3 at precision 1.
    assert (cat.objects, cat.detections) == (3, 3)
    assert cat.ap_area == pytest.approx(2 / 3)
    assert cat.ap11 == pytest.approx(7 / 11)
    assert cat.coco_ap == pytest.approx(67 / 101)
    assert (dog.objects, dog.detections, dog.ap_area, dog.coco_ap) == (1, 4, 0, 0)
    assert (emu.objects, emu.ap11, emu.ap_area, emu.coco_ap) == (0, None, None, None)
    assert metrics.voc_map50 == pytest.approx(1 / 3)
    assert metrics.voc07_map50 == pytest.approx(7 / 22)
    assert metrics.coco_ap == pytest.approx(67 / 202)
    assert metrics.coco_ap50 == pytest.approx(67 / 202)
    assert metrics.coco_ap_small == pytest.approx(67 / 101)  # the dog is medium
    assert metrics.coco_ap_medium == 0
    assert metrics.coco_ap_large is None
    assert (metrics.images, metrics.manifest_images, metrics.failed) == (5, 5, 1)
    assert metrics.failed_by_reason == {"decode: UnreadableImage": 1}
    assert (metrics.objects, metrics.detections) == (4, 7)
    assert metrics.notes == ()


def test_any_cut_gives_the_same(tmp_path, manifest):
    by_size = [
        evaluate(detected(tmp_path / str(size), manifest, shard_size=size), manifest)
        for size in (1, 2, 5)
    ]
    assert by_size[0] == by_size[1] == by_size[2]


def test_opened_inputs_are_taken_too(tmp_path, manifest):
    uri = detected(tmp_path, manifest)
    assert evaluate(shards.open_parts(uri), open_manifest(manifest)) == evaluate(uri, manifest)


def test_json_has_no_nan(tmp_path, manifest):
    metrics = evaluate(detected(tmp_path, manifest), manifest)
    stored = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert stored["per_class"][2]["ap11"] is None
    assert math.isclose(stored["voc_map50"], 1 / 3)


def test_a_limited_run_is_scored_over_its_images(tmp_path, manifest):
    first = dict(list(DETECTED.items())[:2])
    metrics = evaluate(detected(tmp_path, manifest, first), manifest)
    assert metrics.per_class[0].ap_area == 1  # the third cat is in an image beyond the limit
    assert (metrics.images, metrics.manifest_images) == (2, 5)
    assert metrics.notes == ("scored over the first 2 of the manifest's 5 images",)


def test_other_images_are_named(tmp_path, manifest):
    uri = detected(tmp_path, manifest)
    other = write_annotations(
        str(tmp_path / "other.parquet"),
        {name: [an_object("cat", A)] for name in ("one", "two", "tree", "four", "five")},
        ("cat",),
    )
    with pytest.raises(UnreadableDataset, match=r"row 2 is 'three' in .*detections and 'tree' in"):
        evaluate(uri, other)


def test_more_images_than_the_manifest_has(tmp_path, manifest):
    uri = detected(tmp_path, manifest)
    short = write_annotations(
        str(tmp_path / "short.parquet"), {"one": [an_object("cat", A)]}, ("cat",)
    )
    with pytest.raises(UnreadableDataset, match=r"has 5 images, the manifest .* only 1"):
        evaluate(uri, short)


def test_an_unlabelled_manifest_is_refused(tmp_path):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": None, "two": None})
    uri = detected(tmp_path, manifest, {"one": [], "two": []})
    with pytest.raises(UnreadableDataset, match="no annotated objects"):
        evaluate(uri, manifest)


def test_images_without_annotations_are_left_out(tmp_path):
    manifest = write_annotations(
        str(tmp_path / "m.parquet"), {"one": None, "two": [an_object("cat", A)]}, ("cat",)
    )
    uri = detected(
        tmp_path, manifest, {"one": [("cat", 0.9, B)], "two": [("cat", 0.8, A)]}, ("cat",)
    )
    metrics = evaluate(uri, manifest)
    assert metrics.voc_map50 == 1
    assert metrics.unlabelled == 1
    assert metrics.notes == ("1 images without annotations are left out",)


def test_annotated_images_that_hold_nothing(tmp_path):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": [], "two": []}, ("cat",))
    metrics = evaluate(
        detected(tmp_path, manifest, {"one": [("cat", 0.9, B)], "two": []}, ("cat",)), manifest
    )
    assert metrics.voc07_map50 is None
    assert metrics.coco_ap is None
    assert metrics.detections == 1


def test_classes_meet_by_name(tmp_path, manifest):
    uri = detected(tmp_path, manifest, classes=("owl", "dog", "cat"))  # other numbers, other order
    metrics = evaluate(uri, manifest)
    assert metrics.per_class[0].ap_area == pytest.approx(2 / 3)
    assert metrics.notes == (
        "the manifest has no class owl: detections of it are left out",
        "the checkpoint has no class emu: all its objects count as missed",
    )


def test_no_class_in_common(tmp_path, manifest):
    uri = detected(tmp_path, manifest, {"one": [("owl", 0.9, A)]}, classes=("owl",))
    with pytest.raises(UnreadableDataset, match=r"detections are of owl, .* cat, dog, emu"):
        evaluate(uri, manifest)


def test_a_manifest_that_lists_no_classes(tmp_path):
    manifest = write_annotations(
        str(tmp_path / "m.parquet"),
        {"one": [an_object("dog", A)], "two": [an_object("cat", B)]},
        classes=None,
    )
    uri = detected(tmp_path, manifest, {"one": [("dog", 0.9, A)], "two": []}, ("cat", "dog"))
    metrics = evaluate(uri, manifest)
    assert [(row.label, row.ap_area) for row in metrics.per_class] == [("cat", 0), ("dog", 1)]


def test_an_output_of_another_job_is_refused(tmp_path, manifest):
    uri = write_proposals(str(tmp_path / "proposals"), manifest, {"one": [A], "two": [B]})
    with pytest.raises(UnreadableDataset, match="no column detections, so no detect run"):
        evaluate(uri, manifest)


def test_a_score_that_is_no_number_is_refused(tmp_path, manifest):
    uri = detected(tmp_path, manifest, {"one": [], "two": [("cat", float("nan"), A)]})
    with pytest.raises(UnreadableDataset, match=r"'two'.*not a finite number"):
        evaluate(uri, manifest)
