"""Splits: stable when images are added, groups whole, fractions met by class."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.subsets.split_assignment import (
    assign_by_hash,
    assign_stratified,
    check_fractions,
    hash_group,
)

IMAGES = [f"image {number}" for number in range(2000)]


def test_images_keep_their_split_when_a_tenth_more_come() -> None:
    before = assign_by_hash(IMAGES, (0.8, 0.1, 0.1), 0)
    more = [f"new {number}" for number in range(200)]
    after = assign_by_hash([*more, *IMAGES], (0.8, 0.1, 0.1), 0)
    assert all(after[image] == split for image, split in before.items())
    assert len(after) == 2200


def test_fractions_are_met_nearly_and_the_seed_changes_who_is_where() -> None:
    first, second = (assign_by_hash(IMAGES, (0.8, 0.1, 0.1), seed) for seed in (0, 1))
    counts = Counter(first.values())
    # Three standard deviations of a binomial: 3 * sqrt(2000 * 0.8 * 0.2) = 54.
    assert abs(counts[0] - 1600) < 54
    assert abs(counts[1] - 200) < 41
    assert first != second


def test_the_hash_is_the_same_for_ever() -> None:
    assert hash_group(0, "a") == pytest.approx(0.8597534365)
    assert hash_group(7, "video 3") == pytest.approx(0.4347220828)


def test_strata_meet_the_fractions_of_each_class() -> None:
    labels = [["cat"] if number < 100 else ["dog"] for number in range(1000)]
    assigned = assign_stratified(IMAGES[:1000], labels, (0.8, 0.2), 0, {})
    by_class = Counter((labels[n][0], assigned[image]) for n, image in enumerate(IMAGES[:1000]))
    assert by_class == {("cat", 0): 80, ("cat", 1): 20, ("dog", 0): 720, ("dog", 1): 180}


def test_a_group_is_whole_and_kept_ones_count() -> None:
    groups = [f"video {number // 10}" for number in range(100)]
    kept = {"video 0": 1, "video 1": 1}
    assigned = assign_stratified(groups, [["x"]] * 100, (0.5, 0.5), 0, kept)
    assert assigned["video 0"] == assigned["video 1"] == 1
    assert Counter(assigned.values()) == {0: 5, 1: 5}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.8, 0.1, 0.2), "0.8 0.1 0.2 add up to 1.1, expected 1"),
        ((1.0,), "expected two or more"),
        ((1.2, -0.2), "each must be above 0 and below 1"),
        ((float("nan"), 0.5), "each must be above 0"),
    ],
)
def test_wrong_fractions_are_rejected(fractions: tuple[float, ...], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        check_fractions(fractions)
