import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import geometry, imaging
from pipeline.analysis.overlap import BUDGETS, SIZES, assign_size_groups, compute_best_overlaps
from pipeline.analysis.recall import evaluate_proposals
from pipeline.analysis.recall_plot import draw_recall_plot
from pipeline.errors import UnreadableDataset
from tests.outputs import (
    FailedImage,
    make_object,
    write_annotations,
    write_detections,
    write_proposals,
)

A, B, C = (0, 0, 10, 10), (50, 50, 90, 90), (0, 0, 98, 98)
FAR = (95, 0, 100, 5)


@pytest.fixture
def manifest(tmp_path):
    return write_annotations(
        str(tmp_path / "manifest.parquet"),
        {
            "one": [make_object("cat", A), make_object("dog", B)],
            "two": [make_object("cat", C), make_object("cat", B, difficult=True)],
            "three": [make_object("dog", A), make_object("emu", A, crowd=True)],
        },
        ("cat", "dog", "emu"),
    )


@pytest.fixture
def recall(tmp_path, manifest):
    uri = write_proposals(
        str(tmp_path / "proposals"),
        manifest,
        {
            # The cat's best overlap is 0.6 in ten boxes and 0.7 in twenty; the dog's is 1, in box 12.
            "one": [(0, 0, 10, 6), *[FAR] * 9, (0, 0, 10, 7), B],
            "two": [(0, 0, 98, 49)],  # 0.5, exactly
            "three": FailedImage("TimedOut"),
        },
    )
    return evaluate_proposals(uri, manifest)


def test_recall_matches_a_hand_calculation(recall):
    assert recall.objects == 4
    assert recall.recall50 == pytest.approx(3 / 4)
    assert recall.recall70 == pytest.approx(2 / 4)
    # 0.7 is reached at 5 of 10 thresholds, 1.0 at 10, 0.5 at 1, the failed image's dog at none.
    assert recall.average_recall == pytest.approx((5 + 10 + 1 + 0) / 40)


def test_mabo_matches_a_hand_calculation(recall):
    cat, dog, emu = recall.per_class
    assert (cat.objects, dog.objects, emu.objects) == (2, 2, 0)
    assert cat.curve[-1].best_overlap == pytest.approx((0.7 + 0.5) / 2)
    assert dog.curve[-1].best_overlap == pytest.approx((1 + 0) / 2)
    assert emu.curve[-1].best_overlap is None
    assert recall.mabo == pytest.approx((0.6 + 0.5) / 2)


def test_a_budget_counts_the_first_boxes_only(recall):
    ten, twenty = recall.curve[BUDGETS.index(10)], recall.curve[BUDGETS.index(20)]
    assert (ten.recall50, ten.recall70) == (2 / 4, 0)
    assert (twenty.recall50, twenty.recall70) == (3 / 4, 2 / 4)
    assert recall.mabo_curve[BUDGETS.index(10)] == pytest.approx(((0.6 + 0.5) / 2 + 0) / 2)


def test_objects_are_grouped_by_size(recall):
    by_size = {group.name: (group.objects, group.curve[-1].recall50) for group in recall.per_size}
    assert by_size == dict(
        zip(SIZES, [(2, 0.5), (1, 1.0), (1, 1.0), (0, None), (2, 0.5), (2, 1.0)], strict=True)
    )


def test_images_boxes_and_failures_are_counted(recall):
    assert (recall.images, recall.failed, recall.boxes) == (3, 1, 13)
    assert recall.failed_by_reason == {"TimedOut": 1}
    assert (recall.boxes_mean, recall.boxes_median) == (6.5, 6.5)  # the failed one has none
    assert recall.provenance == {"algorithm": "by hand"}


def test_recall_has_plain_json_and_a_plot(recall):
    stored = json.loads(json.dumps(recall.to_json(), allow_nan=False))
    assert stored["curve"][0]["boxes"] == 10
    assert stored["curve"][-1]["boxes"] is None
    plot = imaging.decode_image(draw_recall_plot(recall))
    assert plot.shape[0] > 300
    assert len(np.unique(plot.reshape(-1, 3), axis=0)) > 10


def test_failed_images_have_no_recall(tmp_path, manifest):
    uri = write_proposals(
        str(tmp_path / "p"), manifest, dict.fromkeys(("one", "two"), FailedImage())
    )
    recall = evaluate_proposals(uri, manifest)
    assert (recall.recall50, recall.mabo, recall.boxes_mean) == (0, 0, None)
    assert recall.notes == ("scored over the first 2 of the manifest's 3 images",)
    assert draw_recall_plot(recall).startswith(b"\x89PNG")


def test_recall_without_objects_is_none(tmp_path):
    manifest = write_annotations(str(tmp_path / "m.parquet"), {"one": []}, ("cat",))
    recall = evaluate_proposals(
        write_proposals(str(tmp_path / "p"), manifest, {"one": [A]}), manifest
    )
    assert (recall.objects, recall.recall50, recall.mabo) == (0, None, None)
    assert draw_recall_plot(recall).startswith(b"\x89PNG")


def test_images_of_unknown_size_have_no_relative_sizes(tmp_path):
    manifest = write_annotations(
        str(tmp_path / "m.parquet"), {"one": [make_object("cat", A)]}, ("cat",), size=None
    )
    recall = evaluate_proposals(
        write_proposals(str(tmp_path / "p"), manifest, {"one": FailedImage()}), manifest
    )
    assert [group.objects for group in recall.per_size] == [1, 0, 0, 0, 0, 0]


def test_an_output_of_another_job_is_rejected(tmp_path, manifest):
    uri = write_detections(str(tmp_path / "d"), manifest, {"one": []}, ("cat",))
    with pytest.raises(UnreadableDataset, match="no column boxes, so no propose run"):
        evaluate_proposals(uri, manifest)


def test_sizes_are_divided_at_their_borders():
    absolute, relative = assign_size_groups(np.array([1023.0, 1024, 9215, 9216]), 102_400.0)
    assert absolute.tolist() == [0, 1, 1, 2]
    assert relative.tolist() == [3, 4, 4, 4]


corner = st.integers(0, 20)
boxes_strategy = st.tuples(corner, corner, st.integers(1, 9), st.integers(1, 9)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(boxes_strategy, min_size=1, max_size=4), st.lists(boxes_strategy, max_size=12))
def test_best_overlaps_are_the_maxima_over_the_first_boxes(objects, proposals):
    objects, proposals = np.array(objects, float), np.array(proposals, float).reshape(-1, 4)
    best = compute_best_overlaps(objects, proposals, (1, 3, 7, None))
    for row, box in enumerate(objects):
        for column, budget in enumerate((1, 3, 7, len(proposals))):
            first = proposals[:budget]
            expected = geometry.iou(box[None], first).max() if len(first) else 0.0
            assert best[row, column] == expected
    assert (np.diff(best, axis=1) >= 0).all()


def test_overlaps_within_budgets_are_those_of_the_first_boxes():
    random = np.random.default_rng(3)
    corners = random.uniform(0, 80, (40, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 30, (40, 2))], axis=1)
    budgets = (1, 7, 7, 40, 1000, None)
    overlaps = compute_best_overlaps(boxes[:5], boxes[5:], budgets)
    for index, budget in enumerate(budgets):
        expected = geometry.iou(boxes[:5], boxes[5:][:budget]).max(axis=1)
        np.testing.assert_array_equal(overlaps[:, index], expected)
