from dataclasses import replace

import numpy as np
import pytest

from pipeline.analysis.misses import MissCounts, build_miss_table
from pipeline.analysis.resampling import ImageSample, Resampler
from tests.analysis.scenes import draw_scenes, make_scenes

SMALL, LARGE = (0, 0, 10, 10), (100, 0, 300, 200)
OBJECTS = [(0, "cat", SMALL), (0, "cat", LARGE), (1, "cat", LARGE), (1, "dog", LARGE)]
DETECTIONS = [(0, "cat", 0.75, LARGE), (1, "cat", 0.25, LARGE)]


def match(covered50, covered70):
    """The matches of four objects, and whether proposals cover each, in the order of OBJECTS."""
    scenes = make_scenes(2, ("cat", "dog"), OBJECTS, DETECTIONS)
    matches = scenes.match()
    flags = {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}
    order = [
        flags[int(row), int(index)]
        for row, index in zip(matches.row, matches.object_index, strict=True)
    ]
    return replace(
        matches,
        covered50=np.array(covered50, np.int8)[order],
        covered70=np.array(covered70, np.int8)[order],
    )


def compute(matches, score, resampler=None):
    counts = MissCounts(("cat", "dog"))
    counts.update(matches)
    return counts.compute(score, resampler)


def test_misses_by_hand():
    # The small cat is not covered and not detected; one large cat is detected too low; the dog is
    # covered and not detected.
    analysis = compute(match([0, 1, 1, 1], [0, 1, 0, 0]), 0.5)
    overall = analysis.overall
    assert (overall.objects, overall.missed, overall.scored_low) == (4, 3, 1)
    assert (overall.missed_by_proposals, overall.missed_by_head) == (1, 2)
    assert overall.proposal_share.value == pytest.approx(1 / 3)
    assert overall.recall.value == pytest.approx(1 / 4)
    assert overall.proposal_recall50.value == pytest.approx(3 / 4)
    assert overall.proposal_recall70.value == pytest.approx(1 / 4)
    cat, dog = analysis.per_class
    assert (cat.missed_by_proposals, cat.missed_by_head) == (1, 1)
    assert (dog.missed_by_proposals, dog.missed_by_head) == (0, 1)
    small, medium, large = analysis.per_size
    assert (small.objects, medium.objects, large.objects) == (1, 0, 3)
    assert small.missed_by_proposals == 1
    assert [(row.label, row.size) for row in analysis.per_class_and_size] == [
        ("cat", "small"),
        ("cat", "large"),
        ("dog", "large"),
    ]


def test_at_a_lower_score_less_is_missed():
    overall = compute(match([0, 1, 1, 1], [0, 1, 0, 0]), 0.25).overall
    assert (overall.missed, overall.scored_low, overall.missed_by_head) == (2, 0, 1)


def test_a_perfect_head_reaches_the_recalls_that_proposals_cover():
    head = compute(match([0, 1, 1, 1], [0, 1, 0, 0]), 0.5).perfect_head
    # 2 of 3 cats are covered: recalls 0 to .66 of 101 are reached; the dog is covered.
    assert head.ap50_per_class == {"cat": pytest.approx(67 / 101), "dog": 1.0}
    assert head.map50 == pytest.approx((67 / 101 + 1) / 2)
    assert head.map70 == pytest.approx((34 / 101 + 0) / 2)


def test_without_proposals_the_cause_is_unknown():
    analysis = compute(match([-1] * 4, [-1] * 4), 0.5)
    assert analysis.perfect_head is None
    assert analysis.overall.missed == 3
    assert analysis.overall.missed_by_head is None
    assert analysis.overall.proposal_recall50.value is None


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    merged, whole = MissCounts(scenes.classes), MissCounts(scenes.classes)
    whole.update(scenes.match())
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = MissCounts(scenes.classes)
        counts.update(part)
        merged.merge(counts)
    assert merged.compute(0.25) == whole.compute(0.25)


def test_rates_have_intervals_around_them():
    matches = draw_scenes(images=60, seed=1).match()
    covered = np.where(matches.stands_for_object, np.arange(len(matches)) % 3 > 0, -1).astype(
        np.int8
    )
    matches = replace(matches, covered50=covered, covered70=covered)
    sample = ImageSample()
    sample.update(matches)
    counts = MissCounts([f"class {k}" for k in range(4)])
    counts.update(matches)
    overall = counts.compute(0.25, Resampler(sample, 200)).overall
    for rate in (overall.recall, overall.proposal_share, overall.proposal_recall50):
        assert 0 < rate.low < rate.value < rate.high < 1


def test_the_table_has_a_row_per_class_and_size():
    table = build_miss_table(compute(match([0, 1, 1, 1], [0, 1, 0, 0]), 0.5))
    assert len(table) == 1 + 2 + 3 + 3
    assert table.column("missed").to_pylist()[0] == 3
