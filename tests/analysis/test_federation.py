"""Federated annotations: what the annotation of an image cannot judge counts neither way, as in LVIS."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from pipeline.analysis.annotation_digest import digest_annotations
from pipeline.analysis.confusion import ConfusionCounts
from pipeline.analysis.evaluation import evaluate
from pipeline.analysis.manifest_join import join_manifest
from pipeline.analysis.match_outcomes import concatenate_matches, find_counted, find_excused
from pipeline.analysis.match_table import build_matches, read_matches
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.engine.analyze.run import analyze_detections
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.shards import open_parts
from tests.analysis.peers import average_defined
from tests.analysis.scenes import Scenes, draw_scenes, to_xywh
from tests.outputs import make_object, write_detections

CLASSES = ("cat", "dog", "emu")
A, B = (0, 0, 50, 50), (50, 50, 100, 100)
ALL = 2**10 - 1
Labels = tuple[str, ...] | None


def write_federated(
    uri: str,
    images: dict[str, tuple[list, Labels, Labels]],
    classes: tuple[str, ...] = CLASSES,
) -> str:
    """Write a manifest from each image's objects, negative labels and labels that are not exhaustive."""
    rows = [
        ManifestRow(image_id, f"/{image_id}.jpg", 300, 300, tuple(objects), *labels)
        for image_id, (objects, *labels) in images.items()
    ]
    write_manifest(uri, rows, classes, federated=True)
    return uri


def match(folder: Path, images: dict, detections: dict, classes=CLASSES) -> Matches:
    manifest = write_federated(f"{folder}/m.parquet", images, classes)
    parts = open_parts(write_detections(f"{folder}/d", manifest, detections, classes))
    batches = join_manifest(parts, open_manifest(manifest), ["detections"])
    return concatenate_matches(
        [read_matches(build_matches(batch, classes, index)) for index, batch in enumerate(batches)]
    )


def test_only_what_an_image_is_annotated_for_is_judged(tmp_path):
    cat = [make_object("cat", A)]
    images = {
        "positive": (cat, ("dog",), ()),
        "more": (cat, (), ("cat",)),
        "exhaustive": (cat, None, None),
    }
    found = {
        "positive": [("cat", 0.9, A), ("cat", 0.8, B), ("dog", 0.7, B), ("emu", 0.6, A)],
        "more": [("cat", 0.9, A), ("cat", 0.8, B)],
        "exhaustive": [("cat", 0.9, A), ("emu", 0.6, A)],
    }
    matches = match(tmp_path, images, found)
    rows = {
        (int(row), CLASSES[k], round(float(score), 1)): index
        for index, (row, k, score) in enumerate(
            zip(matches.row, matches.class_id, matches.score, strict=True)
        )
    }
    true = [(0, "cat", 0.9), (1, "cat", 0.9), (2, "cat", 0.9)]
    false = [(0, "cat", 0.8), (0, "dog", 0.7), (2, "emu", 0.6)]
    excused = [(0, "emu", 0.6), (1, "cat", 0.8)]
    assert sorted([*true, *false, *excused]) == sorted(rows)
    for expected, outcome, voc in (
        (true, (ALL, 0), 1),
        (false, (0, 0), 0),
        (excused, (0, ALL), -1),
    ):
        for key in expected:
            index = rows[key]
            assert (matches.true_all[index], matches.ignored_all[index]) == outcome, key
            assert matches.voc[index] == voc, key
    is_excused = find_excused(matches)
    assert np.flatnonzero(is_excused).tolist() == sorted(rows[key] for key in excused)
    assert not find_counted(matches)[is_excused].any()
    assert (matches.error[is_excused] == -1).all()
    assert ERRORS[matches.error[rows[2, "emu", 0.6]]] == "cls"
    confusion = ConfusionCounts(CLASSES)
    confusion.update(matches)
    # Rows are objects: three cats are detected as cats. No object: a cat and a dog; the emu lost its cat.
    expected = [[3, 0, 0, 0], [0] * 4, [0] * 4, [1, 1, 1, 0]]
    np.testing.assert_array_equal(confusion.compute(0.0).to_array(), expected)


def test_the_three_hundred_best_of_an_image_count(tmp_path):
    boxes = [(i, 200, i + 10, 220) for i in range(250)]
    found = [("dog" if i % 2 else "emu", 0.9 - i / 1000, box) for i, box in enumerate(boxes)]
    found += [("cat", 0.5 - i / 1000, B) for i in range(50)]
    found += [("cat", 0.4, A), ("cat", 0.4, A)]  # the best ones are 300 without these
    objects = [make_object("cat", A)]
    matches = match(tmp_path, {"one": (objects, ("dog", "emu"), ())}, {"one": found})
    assert (matches.kind == 1).sum() == 1  # the cat is missed
    last = np.flatnonzero(np.isclose(matches.score, 0.4))
    assert (matches.true_all[last] == 0).all()
    assert (matches.ignored_all[last] == ALL).all()
    assert (matches.voc[last] == -1).all()
    assert find_excused(matches).sum() == 2
    assert matches.iou[last].tolist() == [
        1,
        1,
    ]  # shown beside the object that they would have found


def draw_federated(scenes: Scenes, seed: int) -> list[tuple[Labels, Labels]]:
    """Draw the classes that each image does not show, and those of which it may show more."""
    rng = np.random.default_rng(seed)
    shown = defaultdict(set)
    for image, k in zip(scenes.ground_truth.image, scenes.ground_truth.class_id, strict=True):
        shown[int(image)].add(int(k))
    lists = []
    for image in range(scenes.images):
        others = [k for k in range(len(scenes.classes)) if k not in shown[image]]
        negative = [k for k in others if rng.random() < 0.5]
        partial = [k for k in shown[image] if rng.random() < 0.3]
        lists.append(tuple(tuple(scenes.classes[k] for k in ks) for ks in (negative, partial)))
    return lists


def write_scenes(
    folder: Path, scenes: Scenes, lists: list[tuple[Labels, Labels]]
) -> tuple[str, str]:
    truth, found = scenes.ground_truth, scenes.detections
    objects = defaultdict(list)
    for image, k, box in zip(truth.image, truth.class_id, truth.boxes.tolist(), strict=True):
        objects[image].append(make_object(scenes.classes[k], box))
    detections = {f"i{image}": [] for image in range(scenes.images)}
    rows = zip(
        found.image, found.class_id, found.scores.tolist(), found.boxes.tolist(), strict=True
    )
    for image, k, score, box in rows:
        detections[f"i{image}"].append((scenes.classes[k], score, box))
    images = {f"i{image}": (objects[image], *lists[image]) for image in range(scenes.images)}
    manifest = write_federated(f"{folder}/m.parquet", images, scenes.classes)
    return write_detections(f"{folder}/d", manifest, detections, scenes.classes), manifest


def _round(boxes):
    return boxes.astype(np.float32).astype(np.float64)  # as the manifest and the parts hold them


@pytest.mark.parametrize("seed", range(2))
def test_average_precision_is_that_of_lvis(tmp_path, seed, monkeypatch):
    monkeypatch.setitem(sys.modules, "lvis.vis", MagicMock())  # draws, and needs other packages
    monkeypatch.setattr(np, "float", float, raising=False)  # as before NumPy 1.24
    lvis = pytest.importorskip("lvis")
    scenes = draw_scenes(images=40, seed=seed)
    lists = draw_federated(scenes, seed)
    metrics = evaluate(*write_scenes(tmp_path, scenes, lists))
    truth, found = scenes.ground_truth, scenes.detections
    position = {name: k + 1 for k, name in enumerate(scenes.classes)}
    content = {
        "images": [
            {
                "id": image + 1,
                "neg_category_ids": [position[name] for name in negative],
                "not_exhaustive_category_ids": [position[name] for name in partial],
            }
            for image, (negative, partial) in enumerate(lists)
        ],
        "categories": [{"id": k, "name": name, "frequency": "f"} for name, k in position.items()],
        "annotations": [
            {
                "id": index + 1,
                "image_id": int(truth.image[index]) + 1,
                "category_id": int(truth.class_id[index]) + 1,
                "bbox": box,
                "area": box[2] * box[3],
            }
            for index, box in enumerate(to_xywh(_round(truth.boxes)).tolist())
        ],
    }
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    dataset = lvis.LVIS(f"{tmp_path}/lvis.json")
    results = [
        {
            "image_id": int(found.image[index]) + 1,
            "category_id": int(found.class_id[index]) + 1,
            "bbox": box,
            "score": float(found.scores[index]),
        }
        for index, box in enumerate(to_xywh(_round(found.boxes)).tolist())
    ]
    evaluation = lvis.LVISEval(dataset, lvis.LVISResults(dataset, results), "bbox")
    evaluation.params.cat_ids = sorted(position.values())
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]  # IoUs, recalls, classes, ranges of area
    for ours, theirs in (
        (metrics.coco_ap, precision[:, :, :, 0]),
        (metrics.coco_ap50, precision[0, :, :, 0]),
        (metrics.coco_ap_small, precision[:, :, :, 1]),
        (metrics.coco_ap_medium, precision[:, :, :, 2]),
    ):
        assert ours == pytest.approx(average_defined(theirs), abs=1e-9)
    plain = evaluate(*write_scenes(tmp_path, scenes, [(None, None)] * scenes.images))
    assert plain.coco_ap < metrics.coco_ap - 0.005


def test_the_analysis_run_gives_the_same_numbers(tmp_path):
    scenes = draw_scenes(images=12, seed=3)
    detections, manifest = write_scenes(tmp_path, scenes, draw_federated(scenes, 3))
    with analyze_detections(detections, manifest, f"{tmp_path}/out") as analysis:
        metrics = analysis.compute_metrics()
    assert metrics == evaluate(detections, manifest)
    assert any("federated (LVIS)" in note for note in metrics.notes)


def test_the_digest_holds_the_lists(tmp_path):
    objects = [make_object("cat", A)]
    digests = {
        digest_annotations(
            open_manifest(write_federated(f"{tmp_path}/m.parquet", {"one": (objects, *lists)})),
            1,
            CLASSES,
        )
        for lists in [
            (("dog",), ()),
            (("emu",), ()),
            ((), ("dog",)),
            (("dog", "emu"), ()),
            (None, None),
        ]
    }
    assert len(digests) == 5
