import json
import math
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import shards
from pipeline.analysis import manifest_join
from pipeline.analysis.evaluation import evaluate
from pipeline.analysis.recall import evaluate_proposals
from pipeline.errors import UnreadableDataset
from pipeline.manifests import open_manifest
from tests.outputs import (
    FailedImage,
    make_object,
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
            "one": [make_object("cat", A), make_object("dog", B)],
            "two": [make_object("cat", A), make_object("cat", B, difficult=True)],
            "three": [],
            "four": [make_object("cat", A)],
            "five": [make_object("dog", A, crowd=True)],
        },
        ("cat", "dog", "emu"),
    )


DETECTED = {
    "one": [("cat", 0.9, A), ("dog", 0.8, A)],
    "two": [("cat", 0.7, A), ("cat", 0.6, B)],
    "three": [("dog", 0.5, A)],
    "four": FailedImage("UnreadableImage", "decode"),
    "five": [("dog", 0.4, B), ("dog", 0.3, A)],
}


def write_detected(tmp_path, manifest, images=None, classes=("cat", "dog", "emu"), **options):
    return write_detections(
        str(tmp_path / "detections"), manifest, images or DETECTED, classes, **options
    )


def test_metrics_match_a_hand_calculation(tmp_path, manifest):
    metrics = evaluate(write_detected(tmp_path, manifest), manifest)
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


def test_metrics_do_not_depend_on_the_shard_size(tmp_path, manifest):
    by_size = [
        evaluate(write_detected(tmp_path / str(size), manifest, shard_size=size), manifest)
        for size in (1, 2, 5)
    ]
    assert by_size[0] == by_size[1] == by_size[2]


def test_opened_inputs_give_the_same_as_uris(tmp_path, manifest):
    uri = write_detected(tmp_path, manifest)
    assert evaluate(shards.open_parts(uri), open_manifest(manifest)) == evaluate(uri, manifest)


def test_json_has_no_nan(tmp_path, manifest):
    metrics = evaluate(write_detected(tmp_path, manifest), manifest)
    stored = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert stored["per_class"][2]["ap11"] is None
    assert math.isclose(stored["voc_map50"], 1 / 3)


def test_a_limited_run_is_scored_over_its_images(tmp_path, manifest):
    first = dict(list(DETECTED.items())[:2])
    metrics = evaluate(write_detected(tmp_path, manifest, first), manifest)
    assert metrics.per_class[0].ap_area == 1  # the third cat is in an image beyond the limit
    assert (metrics.images, metrics.manifest_images) == (2, 5)
    assert metrics.notes == ("scored over the first 2 of the manifest's 5 images",)


def test_a_manifest_of_other_images_is_rejected_with_the_first_difference(tmp_path, manifest):
    uri = write_detected(tmp_path, manifest)
    other = write_annotations(
        str(tmp_path / "other.parquet"),
        {name: [make_object("cat", A)] for name in ("one", "two", "tree", "four", "five")},
        ("cat",),
    )
    with pytest.raises(UnreadableDataset, match=r"row 2 is 'three' in .*detections and 'tree' in"):
        evaluate(uri, other)


def test_more_images_than_in_the_manifest_are_rejected(tmp_path, manifest):
    uri = write_detected(tmp_path, manifest)
    short = write_annotations(
        str(tmp_path / "short.parquet"), {"one": [make_object("cat", A)]}, ("cat",)
    )
    with pytest.raises(UnreadableDataset, match=r"has 5 images, the manifest .* only 1"):
        evaluate(uri, short)


def test_an_unlabelled_manifest_is_rejected(tmp_path):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": None, "two": None})
    uri = write_detected(tmp_path, manifest, {"one": [], "two": []})
    with pytest.raises(UnreadableDataset, match="no annotated objects"):
        evaluate(uri, manifest)


def test_images_without_annotations_are_left_out(tmp_path):
    manifest = write_annotations(
        str(tmp_path / "m.parquet"), {"one": None, "two": [make_object("cat", A)]}, ("cat",)
    )
    uri = write_detected(
        tmp_path, manifest, {"one": [("cat", 0.9, B)], "two": [("cat", 0.8, A)]}, ("cat",)
    )
    metrics = evaluate(uri, manifest)
    assert metrics.voc_map50 == 1
    assert metrics.unlabelled == 1
    assert metrics.notes == ("1 images without annotations are left out",)


def test_annotated_images_without_objects_have_no_ap(tmp_path):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": [], "two": []}, ("cat",))
    metrics = evaluate(
        write_detected(tmp_path, manifest, {"one": [("cat", 0.9, B)], "two": []}, ("cat",)),
        manifest,
    )
    assert metrics.voc07_map50 is None
    assert metrics.coco_ap is None
    assert metrics.detections == 1


def test_a_federated_manifest_is_noted(tmp_path, manifest):
    federated = replace(open_manifest(manifest), is_federated=True)
    detections = write_detected(tmp_path, manifest)
    assert any("federated (LVIS)" in note for note in evaluate(detections, federated).notes)
    assert not any("federated" in note for note in evaluate(detections, manifest).notes)


def test_classes_are_matched_by_name(tmp_path, manifest):
    # The class numbers and their order differ from the manifest's.
    uri = write_detected(tmp_path, manifest, classes=("owl", "dog", "cat"))
    metrics = evaluate(uri, manifest)
    assert metrics.per_class[0].ap_area == pytest.approx(2 / 3)
    assert metrics.notes == (
        "the manifest has no class owl: its detections are left out",
        "the checkpoint has no class emu: all its objects count as missed",
    )


def test_detections_without_a_common_class_are_rejected(tmp_path, manifest):
    uri = write_detected(tmp_path, manifest, {"one": [("owl", 0.9, A)]}, classes=("owl",))
    with pytest.raises(UnreadableDataset, match=r"detections are of owl, .* cat, dog, emu"):
        evaluate(uri, manifest)


def test_classes_come_from_the_objects_if_the_manifest_lists_none(tmp_path):
    manifest = write_annotations(
        str(tmp_path / "m.parquet"),
        {"one": [make_object("dog", A)], "two": [make_object("cat", B)]},
        classes=None,
    )
    uri = write_detected(tmp_path, manifest, {"one": [("dog", 0.9, A)], "two": []}, ("cat", "dog"))
    metrics = evaluate(uri, manifest)
    assert [(row.label, row.ap_area) for row in metrics.per_class] == [("cat", 0), ("dog", 1)]


def test_an_output_of_another_job_is_rejected(tmp_path, manifest):
    uri = write_proposals(str(tmp_path / "proposals"), manifest, {"one": [A], "two": [B]})
    with pytest.raises(UnreadableDataset, match="no column detections, so no detect run"):
        evaluate(uri, manifest)


def test_a_score_that_is_not_a_number_is_rejected(tmp_path, manifest):
    uri = write_detected(tmp_path, manifest, {"one": [], "two": [("cat", float("nan"), A)]})
    with pytest.raises(
        UnreadableDataset, match=r"detections, row 1 \(image 'two'\): a score is not"
    ):
        evaluate(uri, manifest)


def change_parts(uri, change):
    for part in shards.open_parts(uri).shards:
        path = f"{uri}/{part.part_name}"
        table = pq.read_table(path)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def replace_column(name, build):
    return lambda table: table.set_column(table.column_names.index(name), name, build(table))


BAD_UTF8 = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_column("image_id", lambda t: pa.array(range(len(t)))), "column image_id is int64"),
        (lambda t: t.drop_columns(["status"]), "has no column status"),
        (replace_column("status", lambda t: pa.array([None] * len(t), pa.string())), "it is null"),
        (
            replace_column("status", lambda t: pa.concat_arrays([BAD_UTF8] * len(t))),
            "Invalid UTF8",
        ),
        (
            replace_column("status", lambda t: pa.array(["great"] * len(t))),
            "'great', expected ok or failed",
        ),
        (
            replace_column(
                "detections",
                lambda t: pa.array(
                    [
                        [{k: v for k, v in d.items() if k != "score"} for d in row or ()]
                        for row in t["detections"].to_pylist()
                    ]
                ),
            ),
            "column detections is",
        ),
    ],
)
def test_parts_of_another_form_are_named(tmp_path, manifest, change, message):
    uri = write_detected(tmp_path, manifest)
    change_parts(uri, change)
    with pytest.raises(UnreadableDataset, match=rf"part-\d+-.*{message}"):
        evaluate(uri, manifest)


def test_a_dense_image_is_a_batch_of_its_own(tmp_path, manifest, monkeypatch):
    uri = write_detected(tmp_path, manifest, shard_size=5)
    whole = evaluate(uri, manifest)
    monkeypatch.setattr(manifest_join, "OBJECTS_PER_BATCH", 3)
    batches = list(
        manifest_join.join_manifest(shards.open_parts(uri), open_manifest(manifest), ["status"])
    )
    assert [(batch.first_row, len(batch.results)) for batch in batches] == [(0, 1), (1, 3), (4, 1)]
    assert evaluate(uri, manifest) == whole


def test_images_of_another_size_than_annotated_are_noted(tmp_path, manifest):
    images = DETECTED | {
        "four": FailedImage("SizeMismatch", "decode"),
        "five": FailedImage("SizeMismatch", "propose"),
    }
    metrics = evaluate(write_detected(tmp_path, manifest, images), manifest)
    assert metrics.failed_by_reason == {"decode: SizeMismatch": 1, "propose: SizeMismatch": 1}
    assert (
        len([note for note in metrics.notes if "2 of the failed images have another size" in note])
        == 1
    )
    uri = write_proposals(str(tmp_path / "p"), manifest, {"one": FailedImage("SizeMismatch")})
    notes = evaluate_proposals(uri, manifest).notes
    assert any("1 of the failed images have another size" in note for note in notes)
    plain = evaluate(write_detected(tmp_path / "other", manifest), manifest)
    assert not any("another size" in note for note in plain.notes)
