"""How likely a detection is true, by its class and score: a shared logistic curve, shifted per class.

The probability of a detection of class c and score s is the logistic function of a + b logit(s) + d[c]. The
shared a and b come from all detections, each shift d[c] from those of its class, with a normal prior, so
that classes with few detections stay near the shared curve (Platt, Probabilistic outputs for support vector
machines, 1999, with a hierarchical shift). It is fitted to counts by class and bin of the score, which can
be summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 20
_PRIOR_DEVIATION = 1.0
_ROUNDS = 30
_ALTERNATIONS = 5


@dataclass(frozen=True)
class ScoreReliability:
    """The fitted curve of each of K classes."""

    intercept: float
    slope: float
    shifts: NDArray[np.float64]
    """`(K,)`"""

    def estimate(self, class_id: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability `(D,)` that detections of these classes and scores are true."""
        return _logistic(
            self.intercept + self.slope * _logit(scores) + self.shifts[class_id.astype(np.int64)]
        )


def find_score_bins(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bin of each score, from 0."""
    clipped = np.clip(scores.astype(np.float64), 0.0, 1.0)
    return np.minimum((clipped * BINS).astype(np.int64), BINS - 1)


def fit_reliability(counts: NDArray[np.int64]) -> ScoreReliability:
    """Fit the curves.

    Args:
        counts: `(K, BINS, 2)`, the true and the false detections of each class and bin of the score.
    """
    middles = _logit((np.arange(BINS) + 0.5) / BINS)
    features = np.stack([np.ones(BINS), middles], axis=1)
    tiled = np.tile(features, (len(counts), 1))
    true, total = counts[:, :, 0].astype(np.float64), counts.sum(axis=2).astype(np.float64)
    shifts, weights = np.zeros(len(counts)), np.zeros(2)
    for _ in range(_ALTERNATIONS):
        weights = _fit_logistic(
            tiled, true.ravel(), total.ravel(), np.full(2, 1e-3), np.repeat(shifts, BINS)
        )
        for k in range(len(counts)):
            shifts[k] = _fit_logistic(
                np.ones((BINS, 1)),
                true[k],
                total[k],
                np.array([1 / _PRIOR_DEVIATION**2]),
                offset=features @ weights,
            )[0]
    return ScoreReliability(float(weights[0]), float(max(weights[1], 0.05)), shifts)


def _fit_logistic(
    features: NDArray[np.float64],
    true: NDArray[np.float64],
    total: NDArray[np.float64],
    prior_precision: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Newton's method for a logistic regression on counts, with a normal prior around 0."""
    weights = np.zeros(features.shape[1])
    for _ in range(_ROUNDS):
        probability = _logistic(features @ weights + offset)
        gradient = features.T @ (true - total * probability) - prior_precision * weights
        spread = total * probability * (1 - probability)
        curvature = (features.T * spread) @ features + np.diag(prior_precision)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return weights


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(values, -50, 50)))


def _logit(scores: NDArray[Any]) -> NDArray[np.float64]:
    clipped = np.clip(scores.astype(np.float64), 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped))
