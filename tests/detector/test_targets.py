import numpy as np
import torch

from pipeline.detector.targets import TYPICAL_STD, TargetMoments, TargetStatistics, fold_targets
from tests.detector.networks import build_random_network


def test_statistics_are_per_class():
    rng = np.random.default_rng(0)
    labels = np.array([1] * 40 + [2] * 60 + [3] * 2 + [0] * 30)
    targets = rng.normal([0.1, -0.2, 0.3, 0.0], [0.1, 0.2, 0.3, 0.4], (132, 4)).astype(np.float32)
    moments = TargetMoments(3)
    moments.add(targets[:70], labels[:70])
    moments.add(targets[70:], labels[70:])
    statistics = moments.compute_statistics()
    np.testing.assert_allclose(statistics.means[1], targets[:40].mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.stds[2], targets[40:100].std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics.stds[3], TYPICAL_STD)  # two examples are too few
    np.testing.assert_array_equal(statistics.means[[0, 3]], 0)


def test_targets_without_spread_have_the_typical_deviation():
    moments = TargetMoments(1)
    moments.add(np.full((50, 4), 0.25, np.float32), np.ones(50, np.int64))
    np.testing.assert_allclose(moments.compute_statistics().stds[1], TYPICAL_STD)


def test_normalisation_is_per_class_and_leaves_background_at_zero():
    statistics = TargetStatistics(
        np.array([[0] * 4, [1] * 4, [2] * 4], np.float32),
        np.array([[1] * 4, [2] * 4, [4] * 4], np.float32),
    )
    raw = np.array([[9, 9, 9, 9], [3, 1, -1, 5], [6, 2, -2, 10]], np.float32)
    np.testing.assert_allclose(
        statistics.normalise(raw, np.array([0, 1, 2])),
        [[0, 0, 0, 0], [1, 0, -1, 2], [1, 0, -1, 2]],
    )


def test_folding_makes_the_deltas_raw():
    network = build_random_network()
    images, rois = torch.randn(1, 3, 64, 64), torch.tensor([[0, 4.0, 5.0, 40.0, 50.0]])
    rng = np.random.default_rng(1)
    means = rng.normal(size=(4, 4)).astype(np.float32)
    stds = rng.uniform(0.1, 2, (4, 4)).astype(np.float32)
    with torch.no_grad():
        logits, normalised = network(images, rois)
        fold_targets(network, means, stds)
        same, raw = network(images, rois)
    torch.testing.assert_close(logits, same)
    expected = normalised.numpy().reshape(4, 4) * stds + means
    np.testing.assert_allclose(raw.numpy().reshape(4, 4), expected, rtol=1e-4, atol=1e-6)
