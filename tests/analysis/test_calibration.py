import numpy as np
import pytest

from pipeline.analysis.calibration import CalibrationCounts, build_calibration_table, find_bins
from pipeline.analysis.resampling import ImageSample, Resampler
from tests.analysis.scenes import draw_scenes, evaluate_with_hotcoco, make_scenes

A, NOWHERE = (0, 0, 10, 10), (200, 200, 220, 220)


def count(scenes):
    counts = CalibrationCounts(scenes.classes)
    counts.update(scenes.match())
    return counts


def test_figures_by_hand():
    scenes = make_scenes(
        2,
        ("cat", "dog"),
        [(0, "cat", A), (1, "dog", A)],
        [
            (0, "cat", 0.75, A),
            (1, "cat", 0.75, NOWHERE),
            (1, "dog", 0.5, A),
            (1, "dog", 0.0, NOWHERE),
        ],
    )
    calibration = count(scenes).compute()
    # Bins: 0 (score 0, true 0), 5 (score .5, true 1), 7 (score .75, true 1 of 2).
    assert [one.low for one in calibration.overall.bins] == [0.0, 0.5, 0.7]
    assert [one.true_share.value for one in calibration.overall.bins] == [0, 1, 0.5]
    assert calibration.overall.ece.value == pytest.approx((0 + 0.5 + 2 * 0.25) / 4)
    assert calibration.overall.mce == pytest.approx(0.5)
    assert calibration.per_class[0].ece.value == pytest.approx(0.25)


def test_errors_are_hotcocos():
    scenes = draw_scenes(images=60, seed=2)
    expected = evaluate_with_hotcoco(scenes).calibration(n_bins=10, iou_threshold=0.5)
    calibration = count(scenes).compute()
    assert expected["ece"] > 0.05  # hotcoco's streaming form gives zero
    assert calibration.overall.ece.value == pytest.approx(expected["ece"], abs=1e-7)
    assert calibration.overall.mce == pytest.approx(expected["mce"], abs=1e-7)
    assert calibration.overall.detections == expected["num_detections"]
    ours = {row.label: row.ece.value for row in calibration.per_class}
    assert ours == pytest.approx(expected["per_category"], abs=1e-7)
    for own, theirs in zip(calibration.overall.bins, expected["bins"], strict=True):
        assert own.detections == theirs["count"]
        assert own.true_share.value == pytest.approx(theirs["avg_accuracy"])
        assert own.mean_score == pytest.approx(theirs["avg_confidence"], abs=1e-7)


def test_scores_outside_0_to_1_are_in_the_first_or_last_bin():
    scores = np.array([-1, 0, 0.0999, 0.1, 1, 7], np.float32)
    assert find_bins(scores).tolist() == [0, 0, 0, 1, 9, 9]


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    merged = CalibrationCounts(scenes.classes)
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = CalibrationCounts(scenes.classes)
        counts.update(part)
        merged.merge(counts)
    assert merged.compute() == count(scenes).compute()


def test_figures_have_intervals_around_them():
    scenes = draw_scenes(images=60, seed=1)
    sample = ImageSample()
    sample.update(scenes.match())
    overall = count(scenes).compute(Resampler(sample, 200)).overall
    assert overall.ece.low < overall.ece.value < overall.ece.high
    for one in overall.bins:
        assert one.true_share.low < one.true_share.value < one.true_share.high


def test_a_class_without_detections_is_undefined():
    scenes = make_scenes(1, ("cat",), [(0, "cat", A)], [])
    calibration = count(scenes).compute()
    assert calibration.per_class[0].ece.value is None
    assert calibration.per_class[0].bins == ()
    assert len(build_calibration_table(calibration)) == 0
