"""Totals from a sample: weighted by strata, with intervals that hold the truth about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.runs.plan_estimation import (
    RESAMPLES,
    MeasuredStratum,
    merge_sparse,
    resample_totals,
    summarise,
)


def _stratum(images: int, *values: float) -> MeasuredStratum:
    return MeasuredStratum(images, np.array(values, float).reshape(-1, 1))


def test_a_stratum_counts_by_its_images() -> None:
    totals = resample_totals([_stratum(100, 1.0, 3.0), _stratum(10, 50.0, 50.0)])
    assert totals.shape == (1 + RESAMPLES, 1)
    assert totals[0, 0] == 100 * 2 + 10 * 50


def test_images_that_are_all_measured_have_no_interval() -> None:
    estimate = summarise(resample_totals([_stratum(3, 1.0, 5.0, 6.0)])[:, 0])
    assert (estimate.value, estimate.low, estimate.high) == (12.0, 12.0, 12.0)


def test_the_spread_of_the_resamples_is_the_standard_error_of_a_total() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    totals = resample_totals([MeasuredStratum(1000, values[:, None])])[1:, 0]
    standard_error = 1000 * np.sqrt((1 - 4 / 1000) * values.var(ddof=1) / 4)
    assert totals.std() == pytest.approx(standard_error, rel=0.1)


def test_intervals_hold_the_true_total_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    population = random.gamma(4.0, 1.0, 2000)
    hits = 0
    for _ in range(60):
        drawn = random.permutation(population)[:40]
        estimate = summarise(resample_totals([MeasuredStratum(2000, drawn[:, None])])[:, 0])
        hits += estimate.low <= population.sum() <= estimate.high
    assert 50 <= hits <= 60


def test_a_stratum_with_less_than_two_measured_images_joins_its_neighbour() -> None:
    merged = merge_sparse([_stratum(10, 1.0, 2.0), _stratum(20, 3.0), _stratum(1, 9.0)])
    assert [(stratum.images, len(stratum.values)) for stratum in merged] == [(30, 3), (1, 1)]
    (alone,) = merge_sparse([_stratum(5), _stratum(7, 1.0, 2.0)])
    assert (alone.images, len(alone.values)) == (12, 2)
