import numpy as np
import pytest

from pipeline.analysis.operating_points import (
    OperatingPointCounts,
    build_operating_point_table,
)
from pipeline.analysis.resampling import ImageSample, Resampler
from tests.analysis.scenes import draw_scenes, evaluate_with_hotcoco, make_scenes

A, B, NOWHERE = (0, 0, 10, 10), (50, 50, 90, 90), (200, 200, 220, 220)


def compute(scenes):
    counts = OperatingPointCounts(scenes.classes)
    counts.update(scenes.match())
    return counts.compute()


def test_figures_by_hand():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "cat", B)],
        [(0, "cat", 0.75, A), (0, "cat", 0.5, NOWHERE), (0, "cat", 0.25, B), (0, "dog", 0.9, A)],
    )
    points = compute(scenes)
    cat, dog = points.per_class
    # At .75: 1 true, 0 false, F1 = 2/3. At .5: F1 = 2/4. At .25: 2 true, 1 false, F1 = 4/5.
    assert cat.best.score == 0.25
    assert (cat.best.true, cat.best.false, cat.best.missed) == (2, 1, 0)
    assert cat.best.precision.value == pytest.approx(2 / 3)
    assert cat.best.recall.value == 1
    assert cat.best.f1.value == pytest.approx(4 / 5)
    assert cat.curve.score == (0.25, 0.5, 0.75)
    assert cat.curve.precision == pytest.approx((2 / 3, 1 / 2, 1))
    assert cat.curve.recall == pytest.approx((1, 1 / 2, 1 / 2))
    assert cat.curve.f1 == pytest.approx((4 / 5, 1 / 2, 2 / 3))
    assert (dog.best, dog.objects) == (None, 0)
    assert dog.at_overall.recall.value is None  # no dog to find
    assert points.best_score == 0.25
    assert points.overall.best.precision.value == pytest.approx(2 / 4)


def test_of_equal_scores_the_highest_is_best():
    scenes = make_scenes(
        1,
        ("cat",),
        [(0, "cat", A), (0, "cat", B)],
        [
            (0, "cat", 0.75, A),
            (0, "cat", 0.5, NOWHERE),
            (0, "cat", 0.5, NOWHERE),
            (0, "cat", 0.25, B),
        ],
    )
    # F1 at .75 is 2/3, at .25 it is 4/6.
    assert compute(scenes).best_score == 0.75


def test_ignored_detections_do_not_count():
    scenes = make_scenes(
        1,
        ("cat",),
        [(0, "cat", A), (0, "cat", B)],
        [(0, "cat", 0.75, A), (0, "cat", 0.9, B)],
        difficult=(1,),
    )
    best = compute(scenes).overall.best
    assert (best.true, best.false, best.missed) == (1, 0, 0)


def test_nothing_true_has_no_best_score():
    scenes = make_scenes(1, ("cat",), [(0, "cat", A)], [(0, "cat", 0.75, NOWHERE)])
    points = compute(scenes)
    assert points.best_score is None
    assert points.overall.best is None
    assert points.per_class[0].at_overall is None


def test_the_best_f1_is_hotcocos():
    scenes = draw_scenes(images=60, seed=3)
    evaluation = evaluate_with_hotcoco(scenes)
    evaluation.accumulate()
    # hotcoco looks at 101 recalls only, so its best is at most ours.
    expected = evaluation.f_scores()["F1_50"]
    ours = np.mean([row.best.f1.value for row in compute(scenes).per_class])
    assert expected <= ours + 1e-9
    assert ours == pytest.approx(expected, abs=0.02)


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    merged = OperatingPointCounts(scenes.classes)
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = OperatingPointCounts(scenes.classes)
        counts.update(part)
        merged.merge(counts)
    assert merged.compute() == compute(scenes)


def test_the_table_has_the_points_and_a_row_per_score():
    scenes = draw_scenes(images=5)
    counts = OperatingPointCounts(scenes.classes)
    counts.update(scenes.match())
    sample = ImageSample()
    sample.update(scenes.match())
    points = counts.compute(Resampler(sample, 20))
    rows = build_operating_point_table(points).to_pylist()
    curve = [row for row in rows if row["point"] is None]
    assert len(curve) == sum(len(row.curve.score) for row in [points.overall, *points.per_class])
    assert sum(row["label"] is None for row in curve) == len(points.overall.curve.score)
    best, overall = rows[:2]
    assert (best["point"], overall["point"], best["label"]) == ("best", "best_overall", None)
    assert best["score"] == points.best_score
    assert best["recall_low"] <= best["recall"] <= best["recall_high"]
    assert (best["true"], best["f1"]) == (points.overall.best.true, points.overall.best.f1.value)
