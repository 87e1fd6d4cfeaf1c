import numpy as np
import pytest

from pipeline.analysis.score_reliability import BINS, find_score_bins, fit_reliability


def draw_counts(rng, shares, detections):
    """Counts of classes whose detections are true with a probability that follows from the score."""
    counts = np.zeros((len(shares), BINS, 2), np.int64)
    for k, share in enumerate(shares):
        scores = rng.uniform(0, 1, detections).astype(np.float32)
        is_true = rng.random(detections) < share(scores)
        np.add.at(counts, (k, find_score_bins(scores), (~is_true).astype(int)), 1)
    return counts


def test_the_probability_of_each_class_is_found():
    rng = np.random.default_rng(0)
    odds = lambda factor: lambda s: factor * s / (factor * s + 1 - s)  # noqa: E731
    reliability = fit_reliability(draw_counts(rng, [odds(1), odds(4), odds(0.25)], 20_000))
    scores = np.array([0.2, 0.5, 0.8])
    for k, factor in enumerate([1, 4, 0.25]):
        estimated = reliability.estimate(np.full(3, k), scores)
        assert estimated == pytest.approx(odds(factor)(scores), abs=0.03)


def test_a_class_of_few_detections_stays_near_the_others():
    counts = np.zeros((2, BINS, 2), np.int64)
    counts[0, :, 0], counts[0, :, 1] = np.arange(BINS) * 10, np.arange(BINS)[::-1] * 10
    counts[1, 19, 1] = 2  # two false detections of a high score
    reliability = fit_reliability(counts)
    high = reliability.estimate(np.array([0, 1]), np.array([0.95, 0.95]))
    assert 0.5 < high[1] < high[0]


def test_without_detections_it_still_rises_with_the_score():
    reliability = fit_reliability(np.zeros((1, BINS, 2), np.int64))
    low, high = reliability.estimate(np.array([0, 0]), np.array([0.1, 0.9]))
    assert low < high
