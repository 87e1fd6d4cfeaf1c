"""Groups and exclusions, worked by hand."""

from __future__ import annotations

import numpy as np

from pipeline.inspection.duplicate_groups import group_duplicates, list_exclusions
from pipeline.inspection.near_duplicates import NearPairs


def _pair(*pairs: tuple[int, int]) -> NearPairs:
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    return NearPairs(first, second, np.zeros(len(pairs), int), np.ones(len(pairs)), 0, 0)


def test_pairs_that_share_an_image_are_one_group() -> None:
    groups = group_duplicates(_pair((1, 5), (2, 3), (5, 9)))
    assert groups.images.tolist() == [1, 2, 3, 5, 9]
    assert groups.group.tolist() == [1, 2, 2, 1, 1]
    assert groups.count == 2


def test_no_pairs_are_no_groups() -> None:
    groups = group_duplicates(_pair())
    assert (groups.count, list_exclusions(groups, np.zeros(4, int))) == (0, [])


def test_within_a_split_the_first_image_stays_and_leaks_are_left_out_on_both_sides() -> None:
    """Images 0 to 4 are in the first split, 5 and 6 in the second; 0, 1, 5 are the same, and so are 2, 3."""
    split_of = np.array([0, 0, 0, 0, 0, 1, 1])
    rows = list_exclusions(group_duplicates(_pair((0, 1), (1, 5), (2, 3))), split_of)
    assert [(row.image, row.reason, row.other) for row in rows] == [
        (0, "leak", 5),
        (1, "leak", 5),
        (3, "duplicate", 2),
        (5, "leak", 0),
    ]
