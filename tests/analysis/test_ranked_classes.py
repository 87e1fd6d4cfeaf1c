"""The ranking against the rules it follows, and against itself when it is cut into buckets and groups."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.average_precision import average_precision
from pipeline.analysis.executor import InProcess
from pipeline.analysis.ranked_classes import rank_classes, score_groups
from pipeline.analysis.ranked_precision import count_needed_11, count_needed_101
from pipeline.analysis.ranking import (
    COCO_VARIANTS,
    VOC_VARIANT,
    RankingRows,
    compute_falling_keys,
    concatenate_rows,
    pack_masks,
)
from pipeline.analysis.score_buckets import add_counts, count_coarse

VARIANTS = 42


def draw_rows(seed: int, count: int, classes: int, scores: int | None = None) -> RankingRows:
    """Random detections; `scores` is the number of different scores, None for many."""
    generator = np.random.default_rng(seed)
    score = generator.random(count).astype(np.float32)
    if scores is not None:
        score = np.floor(score * scores).astype(np.float32) / scores - np.float32(0.25)
    true = generator.integers(0, 2**VARIANTS, count, dtype=np.uint64)
    true &= generator.integers(0, 2**VARIANTS, count, dtype=np.uint64)
    ignored = ~true & generator.integers(0, 2**VARIANTS, count, dtype=np.uint64)
    ignored[generator.random(count) < 0.5] = 0
    class_id = generator.integers(0, classes, count).astype(np.int32)
    return RankingRows(class_id, score, true, ignored)


def accumulate_as_pycocotools(rows: RankingRows, variant: int, objects: int) -> np.ndarray:
    """The inner loop of `COCOeval.accumulate` for one class, in its own words."""
    order = np.argsort(-rows.score, kind="mergesort")
    dtm = ((rows.true_mask[order] >> np.uint64(variant)) & np.uint64(1)).astype(bool)
    dt_ig = ((rows.ignored_mask[order] >> np.uint64(variant)) & np.uint64(1)).astype(bool)
    tp = np.cumsum(np.logical_and(dtm, ~dt_ig)).astype(float)
    fp = np.cumsum(np.logical_and(~dtm, ~dt_ig)).astype(float)
    rc, pr = tp / objects, tp / (fp + tp + np.spacing(1))
    q = np.zeros(101)
    for i in range(len(pr) - 1, 0, -1):
        pr[i - 1] = max(pr[i - 1], pr[i])
    for ri, pi in enumerate(np.searchsorted(rc, np.linspace(0, 1, 101), side="left")):
        if pi < len(pr):
            q[ri] = pr[pi]
    return q


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 60),
    scores=st.sampled_from([None, 1, 3, 20]),
    extra=st.integers(0, 5),
)
@settings(max_examples=40)
def test_scores_are_those_of_pycocotools_and_of_the_voc_kit(seed, count, scores, extra):
    rows = draw_rows(seed, count, classes=2, scores=scores)
    bits = (rows.true_mask[:, None] >> np.arange(VARIANTS, dtype=np.uint64)) & np.uint64(1)
    most = [bits[rows.class_id == k].sum(axis=0) for k in range(2)]
    objects = np.stack([counts.astype(np.int64) + extra for counts in most])
    for k, scored in enumerate(rank_classes(rows, objects)):
        of_class = rows.select(rows.class_id == k)
        for variant in range(0, VARIANTS, 7):
            if objects[k, variant] == 0:
                assert np.isnan(scored.coco_ap[variant])
                assert np.isnan(scored.area_ap[variant])
                continue
            expected = accumulate_as_pycocotools(of_class, variant, objects[k, variant])
            np.testing.assert_allclose(scored.precision[variant], expected, rtol=0, atol=1e-12)
            assert scored.coco_ap[variant] == pytest.approx(expected.mean(), abs=1e-12)
            ranked = of_class.sort()
            mask = np.uint64(1 << variant)
            hits = (ranked.true_mask & mask != 0)[ranked.ignored_mask & mask == 0]
            eleven, area = average_precision(hits, int(objects[k, variant]))
            assert scored.eleven_point_ap[variant] == pytest.approx(eleven, abs=1e-12)
            assert scored.area_ap[variant] == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("limit", [7, 50, 10_000])
@pytest.mark.parametrize("scores", [None, 1, 4])
def test_groups_do_not_change_a_bit_and_buckets_only_the_order_of_a_sum(limit, scores):
    rows = draw_rows(1, 300, classes=3, scores=scores)
    rows = rows.select(rows.class_id != 2)  # a class without detections
    objects = np.full((3, VARIANTS), 200, np.int64)
    whole, cut = rank_classes(rows, objects), rank_classes(rows, objects, limit)
    ends = [0, 1, 40, 41, 230, len(rows)]
    groups = [rows.select(slice(*pair)) for pair in pairwise(ends)]
    readers = [lambda group=group: group for group in groups]
    class_rows = np.bincount(rows.class_id, minlength=3)
    coarse = add_counts([count_coarse(group) for group in groups])
    grouped = score_groups(readers, class_rows, coarse, objects, InProcess(), limit=limit)
    for one, other, third in zip(whole, cut, grouped, strict=True):
        for name, values in vars(one).items():
            np.testing.assert_array_equal(getattr(other, name), getattr(third, name))
            tolerance = 1e-12 if name == "area_ap" else 0
            np.testing.assert_allclose(values, getattr(third, name), rtol=tolerance, atol=0)
    assert whole[2].coco_ap.max() == 0


def test_needed_detections_follow_the_floats_of_coco_and_the_integers_of_voc():
    objects = np.array([0, 1, 3, 100, 12_345_678])
    for total, needed in zip(objects[1:4], count_needed_101(objects)[1:4], strict=True):
        recall = np.arange(1, total + 1) / total
        expected = np.searchsorted(recall, np.linspace(0, 1, 101), side="left") + 1
        np.testing.assert_array_equal(needed, expected)
    np.testing.assert_array_equal(
        count_needed_11(np.array([10, 3])),
        [[1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]],
    )


def test_falling_keys_order_all_floats():
    scores = np.array([np.inf, 3.4e38, 1, 0.5, 1e-45, 0, -1e-45, -0.5, -np.inf], np.float32)
    keys = compute_falling_keys(scores)
    assert (np.diff(keys.astype(np.int64)) > 0).all()
    assert compute_falling_keys(np.float32([-0.0])) == compute_falling_keys(np.float32([0.0]))


def test_masks_are_packed_area_by_area_and_coco_ends_at_rank_100():
    coco = [np.array([1 << 9, 1], np.int16), *(np.zeros(2, np.int16) for _ in range(2))]
    coco.append(np.array([0, 3], np.int16))
    mask = pack_masks(coco, np.array([True, False]))
    assert mask.tolist() == [(1 << 9) | (1 << VOC_VARIANT), 1 | (3 << 30)]
    ignored = pack_masks(coco, np.array([False, False]), np.array([99, 100], np.int32))
    assert ignored.tolist() == [1 << 9, (1 << COCO_VARIANTS) - 1]


def test_no_rows_give_no_scores():
    rows = concatenate_rows([])
    scored = rank_classes(rows, np.array([[0, 5]]))
    assert np.isnan(scored[0].coco_ap[0])
    assert scored[0].coco_ap[1] == scored[0].area_ap[1] == scored[0].eleven_point_ap[1] == 0
