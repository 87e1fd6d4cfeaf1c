from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.matching import ERRORS, KINDS, Matches, add_coverage, match_images
from tests.analysis.peers import evaluate_with_pycocotools, find_errors_with_tidecv
from tests.analysis.scenes import draw_scenes
from tests.analysis.test_average_precision import make_detections, make_ground_truth

A, B = (0, 0, 100, 100), (200, 200, 300, 300)
ALL = 2**10 - 1


def match(objects, detections, images=1, **options) -> Matches:
    return match_images(
        make_ground_truth(*objects), make_detections(*detections), images, **options
    )


def name_errors(matches: Matches) -> list[str | None]:
    return [None if error < 0 else ERRORS[error] for error in matches.error]


def test_rows_come_by_image_class_and_falling_score_and_objects_after_them():
    matches = match(
        [(0, 1, A), (1, 0, B)],
        [(1, 0, 0.5, A), (0, 1, 0.2, A), (0, 0, 0.3, B), (0, 1, 0.9, B), (1, 0, 0.5, B)],
        images=3,
        first_row=10,
    )
    assert matches.row.tolist() == [10, 10, 10, 11, 11]
    assert matches.class_id.tolist() == [0, 1, 1, 0, 0]
    assert matches.score.tolist() == pytest.approx([0.3, 0.9, 0.2, 0.5, 0.5])
    assert matches.rank.tolist() == [0, 0, 1, 0, 1]
    assert [KINDS[kind] for kind in matches.kind] == ["detection"] * 5
    assert matches.true_all.tolist() == [0, 0, ALL, 0, ALL]
    assert matches.x1.tolist() == [200, 200, 0, 0, 200]


def test_each_object_stands_in_one_row():
    matches = match(
        [(0, 0, A), (0, 0, B), (0, 1, A, "difficult"), (0, 1, B, "crowd")],
        [(0, 0, 0.9, A), (0, 1, 0.8, A), (0, 1, 0.7, B)],
    )
    rows = matches[matches.stands_for_object]
    assert [KINDS[kind] for kind in rows.kind] == ["detection", "missed", "ignored", "ignored"]
    assert rows.object_index.tolist() == [0, 1, 2, 3]
    assert rows.object_x1.tolist() == [0, 200, 0, 200]
    assert rows.object_difficult.tolist() == [False, False, True, False]
    assert rows.object_crowd.tolist() == [False, False, False, True]
    assert np.isnan(rows.score[1:]).all()
    assert rows.rank.tolist() == [0, -1, -1, -1]


def test_thresholds_are_bits():
    # IoU 0.72: true at 0.50, 0.55, 0.60, 0.65 and 0.70; the object is large.
    matches = match([(0, 0, A)], [(0, 0, 0.9, (0, 0, 72, 100))])
    assert matches.true_all.tolist() == [0b11111]
    assert matches.true_large.tolist() == [0b11111]
    assert matches.ignored_all.tolist() == [0]
    # The object is not medium, so there the match is ignored; above 0.70 the detection, 7200 pixels, is
    # medium and false.
    assert (matches.true_medium[0], matches.ignored_medium[0]) == (0, 0b11111)
    # Not matched above 0.70, and not small itself.
    assert (matches.true_small[0], matches.ignored_small[0]) == (0, ALL)
    assert matches.iou[0] == np.float32(0.72)


def test_an_object_on_the_edge_of_two_ranges_is_in_both():
    matches = match([(0, 0, (0, 0, 32, 32))], [(0, 0, 0.9, (0, 0, 32, 32))])
    assert (matches.true_small[0], matches.true_medium[0]) == (ALL, ALL)
    assert (matches.true_large[0], matches.ignored_large[0]) == (0, ALL)


def test_the_hundred_best_of_a_class_count():
    detections = [(0, 0, 1 - index / 1000, B) for index in range(100)]
    matches = match([(0, 0, A)], [*detections, (0, 0, 0.1, A), (0, 1, 0.05, A)])
    late = matches[matches.rank == 100]
    assert (late.true_all[0], late.ignored_all[0], late.error[0]) == (0, 0, -1)
    assert late.voc[0] == 1  # VOC looks at all
    assert KINDS[matches.kind[-1]] == "missed"
    assert late.object_index[0] == 0  # the one that it overlaps most
    assert matches[matches.class_id == 1].rank.tolist() == [0]


def test_the_object_of_an_unmatched_detection_is_the_one_of_its_class_that_it_overlaps_most():
    objects = [(0, 0, (0, 0, 10, 10), "difficult"), (0, 0, (0, 0, 10, 20)), (0, 1, (0, 0, 10, 11))]
    matches = match(objects, [(0, 0, 0.9, (0, 0, 10, 4)), (0, 0, 0.8, (50, 50, 60, 60))])
    # One that counts comes before a difficult one, though the IoU with that is 0.4.
    assert matches.object_index[:2].tolist() == [1, -1]
    assert matches.iou[0] == np.float32(0.2)
    assert np.isnan(matches.iou[1])
    assert matches.nearest_index[:2].tolist() == [0, -1]
    assert matches.nearest_class_id[:2].tolist() == [0, -1]
    assert matches.nearest_iou[0] == np.float32(0.4)


def test_the_overlap_with_a_crowd_is_the_share_inside_it():
    matches = match([(0, 0, A, "crowd")], [(0, 0, 0.9, (95, 0, 105, 10)), (0, 0, 0.8, B)])
    assert (matches.object_index[0], matches.iou[0]) == (0, 0.5)
    assert matches.ignored_all[:2].tolist() == [1, 0]
    assert matches.nearest_index[0] == -1  # crowds are not near


def test_images_without_annotations_have_detections_only():
    annotated = np.array([True, False])
    matches = match([(0, 0, A)], [(0, 0, 0.9, A), (1, 0, 0.8, A)], 2, is_annotated=annotated)
    assert matches.is_annotated.tolist() == [True, False]
    assert matches.rank.tolist() == [0, 0]
    assert (matches.true_all[1], matches.voc[1], matches.error[1]) == (0, 0, -1)


def test_types_of_errors_and_their_objects():
    objects = [(0, 0, A), (0, 1, B), (0, 2, (400, 0, 500, 100)), (0, 0, (600, 0, 700, 100))]
    matches = match(
        objects,
        [
            (0, 0, 0.9, A),
            (0, 0, 0.8, (0, 0, 100, 95)),  # a repetition
            (0, 0, 0.7, B),  # of class 1
            (0, 0, 0.6, (650, 0, 750, 100)),  # IoU 1/3
            (0, 0, 0.5, (900, 0, 950, 100)),  # of nothing
            (0, 0, 0.4, (450, 0, 550, 100)),  # IoU 1/3 with an object of class 2
        ],
    )
    assert name_errors(matches) == [None, "dupe", "cls", "loc", "bkg", "both", None, "miss", None]
    assert matches.error_index.tolist() == [-1, 0, 1, 3, -1, -1, -1, -1, -1]
    # The objects that no detection finds: B and the last one have an explanation.
    assert matches.object_index[6:].tolist() == [1, 2, 3]


def test_coverage_by_proposals():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B), (2, 0, A), (2, 0, B, "difficult"))
    detections = make_detections((0, 0, 0.9, A), (0, 0, 0.8, (500, 500, 600, 600)))
    proposals = [
        np.array([[0, 0, 100, 60], [200, 200, 300, 280], [0, 0, 5, 5]], np.float32),
        np.array([A], np.float32),
        np.empty((0, 4), np.float32),
    ]
    matches = match_images(ground_truth, detections, 3, first_row=7)
    assert matches.covered50.tolist() == [-1] * 5
    covered = add_coverage(matches, ground_truth, iter(proposals), first_row=7)
    assert covered.covered50.tolist() == [1, -1, 1, 0, 0]
    assert covered.covered70.tolist() == [0, -1, 1, 0, 0]


side = st.sampled_from([4, 8, 10, 16, 32, 40, 96, 128])
box = st.tuples(st.integers(0, 30), st.integers(0, 30), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
flag = st.sampled_from(["", "", "", "difficult", "crowd"])
objects = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), box, flag), max_size=9)
score = st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0])
found = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), score, box), max_size=20)


@settings(deadline=None, max_examples=80)
@given(objects, found)
def test_outcomes_equal_those_of_pycocotools(objects, found):
    objects = sorted(objects, key=lambda row: row[0])
    ground_truth, detections = make_ground_truth(*objects), make_detections(*found)
    if not found:  # pycocotools cannot load no results
        return
    matches = match_images(ground_truth, detections, 2)
    evaluation = evaluate_with_pycocotools(ground_truth, detections, 2, 2)
    for k in range(2):
        for area, name in enumerate(("all", "small", "medium", "large")):
            for image in range(2):
                outcome = evaluation.evalImgs[k * 8 + area * 2 + image]
                is_here = (matches.row == image) & (matches.class_id == k)
                rows = matches[is_here & matches.is_detection]
                if outcome is None:
                    assert not is_here.any()
                    continue
                ignored = outcome["dtIgnore"].astype(bool)
                true = (outcome["dtMatches"] > 0) & ~ignored
                np.testing.assert_array_equal(getattr(rows, f"true_{name}"), pack(true))
                np.testing.assert_array_equal(getattr(rows, f"ignored_{name}"), pack(ignored))


def pack(bits):
    return (bits.astype(np.int64) << np.arange(10)[:, None]).sum(axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_errors_equal_those_of_tidecv(seed):
    # No overlaps are equal here: of equal ones, COCO takes the last object and tidecv the first.
    scenes = draw_scenes(images=25, classes=3, seed=seed)
    matches = scenes.match()
    errors, missed = find_errors_with_tidecv(
        scenes.ground_truth, scenes.detections, scenes.images, len(scenes.classes)
    )
    position = {score: index for index, score in enumerate(scenes.detections.scores.tolist())}
    is_detection = matches.is_detection
    expected = [errors[position[score]] for score in matches.score[is_detection].tolist()]
    assert name_errors(matches[is_detection]) == expected
    assert set(expected) == {None, "cls", "loc", "both", "dupe", "bkg"}
    firsts = np.searchsorted(scenes.ground_truth.image, matches.row)
    is_missed = matches.error == ERRORS.index("miss")
    assert set((firsts + matches.object_index)[is_missed].tolist()) == missed
    assert missed


def test_the_order_of_images_in_the_input_does_not_matter():
    rng = np.random.default_rng(0)
    found = [
        (int(image), int(k), score, (x, y, x + 50, y + 50))
        for image, k, x, y, score in zip(
            *(rng.integers(0, n, 60) for n in (5, 2, 99, 99)), rng.random(60), strict=True
        )
    ]
    objects = [(*row[:2], row[3]) for row in found[:20]]
    first = match(objects, found, 5)
    second = match(sorted(objects, key=lambda row: row[0]), found[::-1], 5)
    for field in fields(first):
        np.testing.assert_array_equal(
            getattr(first, field.name), getattr(second, field.name), field.name
        )
