"""Gains over resamples: each is what TIDE gives for the repeated images, and the intervals hold it."""

import numpy as np
import pytest

from pipeline.analysis.tide import TideCounts
from pipeline.analysis.tide_intervals import estimate_gains, resample_gains
from tests.analysis.scenes import draw_scenes
from tests.analysis.test_intervals import make_resampler, repeat_images


def count_tide(scenes):
    counts = TideCounts(scenes.classes)
    counts.update(scenes.match())
    return counts.compute()


def test_gains_of_the_images_and_of_resamples_are_those_of_tide():
    scenes = draw_scenes(images=40, seed=2, classes=3)
    resampler = make_resampler(scenes, 20)
    gains = resample_gains(resampler, len(scenes.classes))
    images = np.unique(resampler.matches.row)
    expected = count_tide(scenes).dap
    assert min(getattr(expected, name) for name in gains) > 0.005
    assert {name: gains[name][0] for name in gains} == pytest.approx(
        {name: getattr(expected, name) for name in gains}, abs=1e-6
    )
    for column in (1, 20):
        weights = np.zeros(scenes.images, int)
        weights[images] = resampler.weights[:, column]
        expected = count_tide(repeat_images(scenes, weights)).dap
        # Copies of an image with two detections of equal rank alternate there.
        assert {name: gains[name][column] for name in gains} == pytest.approx(
            {name: getattr(expected, name) for name in gains}, abs=2e-3
        )


def test_intervals_surround_the_gains_and_are_left_out_without_objects():
    scenes = draw_scenes(images=60, seed=4, classes=2)
    tide = count_tide(scenes)
    intervals = estimate_gains(make_resampler(scenes, 200), tide, 2)
    assert set(intervals) == {"cls", "loc", "both", "dupe", "bkg", "miss", "fp", "fn"}
    for name, (low, high) in intervals.items():
        assert 0 <= low < getattr(tide.dap, name) < high < low + 0.3, name
    # Three classes of which the third has neither objects nor detections: the mean is over the others.
    assert estimate_gains(make_resampler(scenes, 200), tide, 3) == intervals
