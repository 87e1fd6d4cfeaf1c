import json
import pickle

import numpy as np
import pyarrow as pa

from pipeline.analysis.diagnostics import (
    DEFAULT_SCORE,
    DiagnosticCounts,
    DiagnosticOptions,
    compute_diagnostics,
)
from pipeline.analysis.image_facts import read_image_facts
from pipeline.analysis.side_table import read_side_table
from tests.analysis.scenes import draw_scenes, make_facts, make_scenes

A = (0, 0, 10, 10)
OPTIONS = DiagnosticOptions(resamples=50)


def compute(scenes, options=OPTIONS):
    return compute_diagnostics(
        [(scenes.match(), make_facts(scenes.images), None)], scenes.classes, options
    )


def test_merged_parts_give_the_same_results():
    scenes = draw_scenes(images=40, seed=1, flags=True)
    merged = DiagnosticCounts(scenes.classes, OPTIONS)
    cuts = [7, 8, 20]
    bounds = zip([0, *cuts], [*cuts, 40], scenes.match_parts(cuts), strict=True)
    for start, end, part in reversed(list(bounds)):
        counts = DiagnosticCounts(scenes.classes, OPTIONS)
        counts.update(part, make_facts(end - start, first_row=start))
        merged.merge(pickle.loads(pickle.dumps(counts)))
    diagnostics, expected = merged.compute(), compute(scenes)
    assert diagnostics.to_json() == expected.to_json()
    assert all(table.equals(expected.tables[name]) for name, table in diagnostics.tables.items())
    assert len(expected.tables) == 8


def test_sections_are_json_and_agree_with_each_other():
    diagnostics = compute(draw_scenes(images=40, seed=1))
    content = json.loads(json.dumps(diagnostics.to_json(), allow_nan=False))
    assert content["distributions"] is None  # no detections were read
    score = content["operating_points"]["overall"]["best"]["score"]
    assert content["confusion"]["score"] == content["misses"]["score"] == score
    best = content["operating_points"]["overall"]["best"]
    assert content["misses"]["overall"]["missed"] == best["missed"]
    sizes = content["slices"]["attributes"][0]["slices"]
    assert sum(row["true"] for row in sizes) == best["true"]
    assert sum(row["false"] for row in sizes) == best["false"]
    assert content["calibration"]["overall"]["detections"] > best["true"] + best["false"]
    low, high = content["intervals"]["coco_ap50"]
    assert low < content["tide"]["ap50"] < high
    assert set(content["class_intervals"]) == {f"class {k}" for k in range(4)}


def test_a_score_can_be_chosen():
    scenes = draw_scenes(images=10)
    diagnostics = compute(scenes, DiagnosticOptions(min_score=0.75, resamples=0))
    assert diagnostics.min_score == diagnostics.confusion.score == 0.75
    assert diagnostics.precision is None
    assert diagnostics.to_json()["intervals"] is None
    assert diagnostics.operating_points.overall.best.recall.low is None


def test_nothing_true_takes_the_default_score():
    scenes = make_scenes(1, ("cat",), [(0, "cat", A)], [(0, "cat", 0.9, (50, 50, 60, 60))])
    diagnostics = compute(scenes)
    assert diagnostics.min_score == DEFAULT_SCORE
    assert diagnostics.thresholds.overall is None
    json.dumps(diagnostics.to_json(), allow_nan=False)


def test_without_annotations_there_are_distributions_only():
    results = pa.table(
        {
            "status": ["ok"],
            "stage": pa.nulls(1, pa.string()),
            "error_type": pa.nulls(1, pa.string()),
            "detections": pa.array(
                [
                    [
                        {
                            "label": "cat",
                            "label_id": 0,
                            "score": 0.5,
                            "x1": 0.0,
                            "y1": 0.0,
                            "x2": 9.0,
                            "y2": 9.0,
                        }
                    ]
                ]
            ),
        }
    )
    scenes = make_scenes(1, ("cat",), [], [(0, "cat", 0.5, A)])
    matches = scenes.match()
    matches.is_annotated[:] = False
    diagnostics = compute_diagnostics([(matches, make_facts(1), results)], ("cat",), OPTIONS)
    content = diagnostics.to_json()
    assert content.pop("distributions")["overall"]["detections"] == 1
    assert set(content.values()) == {None}
    assert list(diagnostics.tables) == ["distributions"]


def test_labels_beyond_the_classes_are_left_out():
    scenes = draw_scenes(images=10, classes=3)
    matches = scenes.match()
    both = [
        compute_diagnostics([(part, make_facts(10), None)], scenes.classes[:2], OPTIONS)
        for part in (matches, matches[matches.class_id < 2])
    ]
    assert len(both[0].calibration.per_class) == 2
    assert both[0].calibration == both[1].calibration
    assert both[0].tide == both[1].tide


def test_images_beside_the_side_table_are_noted(tmp_path):
    (tmp_path / "side.csv").write_text("image_id,camera\nimage 0,1\n")
    scenes = draw_scenes(images=10)
    diagnostics = compute_diagnostics(
        [(scenes.match(), make_facts(10), None)],
        scenes.classes,
        OPTIONS,
        read_side_table(f"{tmp_path}/side.csv"),
    )
    assert any("1 of the 10 images" in note for note in diagnostics.notes)
    assert diagnostics.slices.attributes[-1].attribute == "camera"


def test_sizes_of_the_manifest_stand_in_for_unknown_ones():
    results = pa.table(
        {
            "image_id": ["a", "b", "c"],
            "width": pa.array([10, None, None], pa.int32()),
            "height": [5, None, None],
        }
    )
    manifest = pa.table({"width": [9, 20, None], "height": pa.array([9, 30, None], pa.int64())})
    facts = read_image_facts(results, 4, manifest)
    np.testing.assert_array_equal(facts.width, [10, 20, np.nan])
    np.testing.assert_array_equal(facts.height, [5, 30, np.nan])
    assert facts.find_positions(np.array([6, 4])).tolist() == [2, 0]
