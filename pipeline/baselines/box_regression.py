"""Box regressors by ridge regression on stored features (R-CNN, appendix C).

They are trained on sums over all pairs, so the features stream through once. The released code whitens the
targets; as ridge regression is linear in them and all four share one lambda, that cancels out, and only
their mean matters. It regresses from pool5; here the features are those of the SVMs.

The sums of a class take (D + 1)² numbers, 134 MB at a width of 4096, so `split_classes` makes groups whose
sums fit in memory; each group reads the features once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

MOST_SUM_BYTES = 1_000_000_000
"""Memory of the sums of a group of classes; a group has at least one."""


@dataclass
class _Sums:
    """Sums over the pairs of one class."""

    gram: NDArray[np.float64]
    """`(D + 1, D + 1)`."""
    products: NDArray[np.float64]
    """`(D + 1, 4)`."""
    targets: NDArray[np.float64]
    """`(4,)`."""


def split_classes(classes: int, width: int) -> list[range]:
    """Groups of consecutive classes whose sums fit in `MOST_SUM_BYTES`.

    Args:
        classes: K.
        width: D, the length of a feature.
    """
    size = max(1, MOST_SUM_BYTES // (8 * (width + 1) ** 2))
    return [range(first, min(first + size, classes)) for first in range(0, classes, size)]


class RidgeRegressors:
    """Sums for the regressors of the classes that were added, `(D + 1)²` numbers per class."""

    def __init__(self, classes: int, width: int) -> None:
        self.pairs = np.zeros(classes, np.int64)
        """Proposals of each class that were added."""
        self._width = width
        self._sums: dict[int, _Sums] = {}

    def add(self, label: int, vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Add proposals of one class.

        Args:
            label: the class, from 0.
            vectors: `(N, D)`, scaled as the SVMs' are.
            targets: raw deltas `(N, 4)` from proposal to object.
        """
        width = self._width + 1
        if label not in self._sums:
            self._sums[label] = _Sums(
                np.zeros((width, width)), np.zeros((width, 4)), np.zeros(4, np.float64)
            )
        sums = self._sums[label]
        extended = np.concatenate([vectors, np.ones((len(vectors), 1))], axis=1).astype(np.float64)
        sums.gram += extended.T @ extended
        sums.products += extended.T @ targets
        sums.targets += targets.sum(axis=0)
        self.pairs[label] += len(vectors)

    def solve(self, ridge: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The regressors: weights `(K, 4, D)` and biases `(K, 4)`, of raw deltas; the sums are used up.

        They minimise sum |w·x + b - (t - mean)|² + ridge (|w|² + b²), as the released code does with a
        constant feature, and add the mean. A class without pairs keeps its proposals: its deltas are 0.
        """
        classes, width = len(self.pairs), self._width
        weights = np.zeros((classes, 4, width), np.float32)
        biases = np.zeros((classes, 4), np.float32)
        while self._sums:
            label, sums = self._sums.popitem()
            if not self.pairs[label]:
                continue
            mean = sums.targets / self.pairs[label]
            # The last row of the Gram matrix sums the features: what the mean contributes.
            centred = sums.products - sums.gram[:, -1:] * mean
            sums.gram[np.diag_indices(width + 1)] += ridge
            solution = linalg.solve(sums.gram, centred, assume_a="pos", overwrite_a=True)
            weights[label] = solution[:-1].T
            biases[label] = solution[-1] + mean
        return weights, biases
