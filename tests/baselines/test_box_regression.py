"""Ridge regressors against a solution that holds all pairs in memory, and by hand."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge

from pipeline import geometry
from pipeline.baselines.box_regression import RidgeRegressors, split_classes
from pipeline.baselines.window_overlaps import measure_overlaps, pair_with_objects
from pipeline.training.annotated_dataset import Annotations


def test_sums_over_batches_give_the_ridge_solution() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 6)).astype(np.float32)
    targets = (vectors @ rng.normal(size=(6, 4)) + 0.3).astype(np.float32)
    regressors = RidgeRegressors(2, 6)
    for rows in np.array_split(np.arange(50), 4):
        regressors.add(1, vectors[rows], targets[rows])
    weights, biases = regressors.solve(10.0)
    mean = targets.mean(axis=0)
    extended = np.concatenate([vectors, np.ones((50, 1))], axis=1)
    expected = Ridge(alpha=10.0, fit_intercept=False).fit(extended, targets - mean)
    np.testing.assert_allclose(weights[1], expected.coef_[:, :-1], atol=1e-4)
    np.testing.assert_allclose(biases[1], expected.coef_[:, -1] + mean, atol=1e-4)
    assert regressors.pairs.tolist() == [0, 50]


def test_classes_are_split_into_groups_whose_sums_fit_in_memory() -> None:
    """A class takes 8 * 4097² = 134 MB: seven fit in 1 GB. A class that alone is larger is a group."""
    assert split_classes(20, 4096) == [range(7), range(7, 14), range(14, 20)]
    assert split_classes(2, 20_000) == [range(1), range(1, 2)]
    assert RidgeRegressors(1000, 4096).pairs.shape == (1000,)  # 134 GB if all were allocated
    assert len(split_classes(20, 1280)) == 1


def test_a_class_without_pairs_keeps_its_proposals() -> None:
    weights, biases = RidgeRegressors(3, 4).solve(1000.0)
    assert not weights.any()
    assert not biases.any()


def test_one_feature_by_hand() -> None:
    """Targets 1 and 3 at x = -1 and 1, mean 2: w = sum x (t - 2) / (sum x² + 2) = 2 / 4, b = 2."""
    regressors = RidgeRegressors(1, 1)
    vectors = np.array([[-1], [1]], np.float32)
    regressors.add(0, vectors, np.array([[1] * 4, [3] * 4], np.float32))
    weights, biases = regressors.solve(2.0)
    np.testing.assert_allclose(weights[0, :, 0], 0.5)
    np.testing.assert_allclose(biases[0], 2.0)


ANNOTATIONS = Annotations(
    np.array([[0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 90, 90]], np.float32),
    np.array([1, 2, 1]),
    np.array([False, False, True]),
)
BOXES = np.array(
    [[0, 0, 10, 5], [0, 0, 10, 8], [21, 0, 31, 10], [60, 60, 70, 70], [40, 0, 45, 5]], np.float32
)


def test_only_proposals_above_the_limit_train_a_regressor() -> None:
    rows, labels, deltas = pair_with_objects(BOXES, ANNOTATIONS, 0.6)
    assert rows.tolist() == [1, 2]  # IoU .8 and 9/11; the first has .5
    assert labels.tolist() == [0, 1]
    decoded = geometry.decode_deltas(deltas[:, None], BOXES[rows])[:, 0]
    np.testing.assert_allclose(decoded, ANNOTATIONS.boxes[:2], atol=1e-5)


def test_targets_by_hand() -> None:
    """From 10 x 8 to 10 x 10 at the same corner: the centre falls by 1 of 8, the height grows by 10/8."""
    _, _, deltas = pair_with_objects(BOXES[1:2], ANNOTATIONS, 0.6)
    np.testing.assert_allclose(deltas, [[0, 1 / 8, 0, np.log(10 / 8)]], atol=1e-6)


def test_overlaps_are_by_class_and_a_crowd_hides_background() -> None:
    overlaps = measure_overlaps(BOXES, ANNOTATIONS, 2)
    np.testing.assert_allclose(
        overlaps, [[0.5, 0], [0.8, 0], [0, 9 / 11], [1, 1], [0, 0]], atol=1e-6
    )
    nothing = np.zeros((0, 4), np.float32)
    assert measure_overlaps(nothing, ANNOTATIONS, 2).shape == (0, 2)
    assert len(pair_with_objects(nothing, ANNOTATIONS, 0.6)[0]) == 0
