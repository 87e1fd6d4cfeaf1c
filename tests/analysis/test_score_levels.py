import numpy as np
import pytest

from pipeline.analysis import score_levels
from pipeline.analysis.score_levels import (
    COARSE,
    FINE,
    LevelCounts,
    compute_average_precision,
    find_levels,
    get_lowest_scores,
    lower_to_level,
)

SCORES = np.array(
    [-3.5, -0.25, -0.0, 0.0, 1e-8, 0.05, 0.3, 0.5, 0.50001, 0.999, 1.0, 7.0], np.float32
)


@pytest.mark.parametrize("bits", [COARSE, FINE])
def test_levels_rise_with_the_score_and_hold_it(bits):
    levels = find_levels(SCORES, bits)
    assert (np.diff(levels) >= 0).all()
    assert levels[2] == levels[3]  # -0 is 0
    lowest = get_lowest_scores(levels, bits)
    assert (lowest <= SCORES).all()
    assert (find_levels(lowest, bits) == levels).all()
    above = get_lowest_scores(levels + 1, bits)
    assert (SCORES[4:] < above[4:]).all()


def test_a_level_is_narrower_than_its_bits_say():
    scores = np.random.default_rng(0).uniform(0.01, 1, 1000).astype(np.float32)
    gap = scores - get_lowest_scores(find_levels(scores, COARSE), COARSE)
    assert (gap / scores).max() < 2.0**-COARSE
    assert gap.max() > 0


def test_round_numbers_are_their_own_level():
    assert lower_to_level(0.5) == 0.5
    assert 0.2990 < lower_to_level(0.3) < 0.3


@pytest.mark.parametrize("together", [1, 10, 10**6])
def test_counts_do_not_depend_on_the_grouping(together, monkeypatch):
    monkeypatch.setattr(score_levels, "_MERGED_KEYS", together)
    rng = np.random.default_rng(0)
    group, scores = rng.integers(0, 3, 500), rng.uniform(0, 1, 500).astype(np.float32)
    values = rng.integers(0, 2, (500, 2))
    flags = values @ [1, 2]
    whole, parts = LevelCounts(2, COARSE), LevelCounts(2, COARSE)
    whole.update(group, scores, flags)
    for chosen in np.array_split(rng.permutation(500), 7):
        part = LevelCounts(2, COARSE)
        part.update(group[chosen], scores[chosen], flags[chosen])
        parts.merge(part)
    for index in range(3):
        first, second = whole.cumulate(index), parts.cumulate(index)
        np.testing.assert_array_equal(first.score, second.score)
        np.testing.assert_array_equal(first.counts, second.counts)
        for score, counts in zip(first.score, first.counts, strict=True):  # exact at the edges
            is_above = (group == index) & (scores >= score)
            np.testing.assert_array_equal(counts, values[is_above].sum(axis=0))
    summed = whole.cumulate_all()
    for score, counts in zip(summed.score, summed.counts, strict=True):
        np.testing.assert_array_equal(counts, values[scores >= score].sum(axis=0))
    groups, sums = whole.sum_groups(0.5)
    assert groups.tolist() == [0, 1, 2]
    expected = [values[(group == k) & (scores >= 0.5)].sum(axis=0) for k in range(3)]
    np.testing.assert_array_equal(sums, expected)


def test_nothing_counted_has_no_levels():
    counts = LevelCounts(3, FINE)
    counts.update(np.empty(0, int), np.empty(0, np.float32), np.empty(0, int))
    assert counts.cumulate(0).counts.shape == (0, 3)
    assert counts.sum_groups(0.0)[0].tolist() == []


def test_average_precision_by_hand():
    # true, false, true of 4 objects: precision 1 up to recall .25, 2/3 up to .5, 0 behind
    true, false = np.array([1, 1, 2]), np.array([0, 1, 1])
    expected = (26 * 1 + 25 * 2 / 3) / 101
    assert compute_average_precision(true, false, 4) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(compute_average_precision(true, false, 0))
    assert compute_average_precision(true[:0], false[:0], 4) == 0
