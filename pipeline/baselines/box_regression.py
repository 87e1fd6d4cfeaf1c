"""Box regressors by ridge regression on stored features (R-CNN, appendix C).

They are trained on sums over all pairs, so the features stream through once. The released code whitens the
targets; as ridge regression is linear in them and all four share one lambda, that cancels out, and only
their mean matters. It regresses from pool5; here the features are those of the SVMs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg


class RidgeRegressors:
    """Sums for the regressors of all classes, `(D + 1)²` numbers per class."""

    def __init__(self, classes: int, width: int) -> None:
        self.pairs = np.zeros(classes, np.int64)
        """Proposals of each class that were added."""
        self._gram = np.zeros((classes, width + 1, width + 1))
        self._products = np.zeros((classes, width + 1, 4))
        self._targets = np.zeros((classes, 4))

    def add(self, label: int, vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Add proposals of one class.

        Args:
            label: the class, from 0.
            vectors: `(N, D)`, scaled as the SVMs' are.
            targets: raw deltas `(N, 4)` from proposal to object.
        """
        extended = np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1).astype(np.float64)
        self._gram[label] += extended.T @ extended
        self._products[label] += extended.T @ targets
        self._targets[label] += targets.sum(axis=0)
        self.pairs[label] += len(vectors)

    def solve(self, ridge: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The regressors: weights `(K, 4, D)` and biases `(K, 4)`, of raw deltas.

        They minimise sum |w·x + b - (t - mean)|² + ridge (|w|² + b²), as the released code does with a
        constant feature, and add the mean. A class without pairs keeps its proposals: its deltas are 0.
        """
        classes, width = len(self.pairs), self._gram.shape[1] - 1
        weights = np.zeros((classes, 4, width), np.float32)
        biases = np.zeros((classes, 4), np.float32)
        for label in np.flatnonzero(self.pairs):
            mean = self._targets[label] / self.pairs[label]
            # The last row of the Gram matrix sums the features: what the mean contributes.
            centred = self._products[label] - self._gram[label, :, -1:] * mean
            gram = self._gram[label] + ridge * np.eye(width + 1)
            solution = linalg.solve(gram, centred, assume_a="pos")
            weights[label] = solution[:-1].T
            biases[label] = solution[-1] + mean
        return weights, biases
