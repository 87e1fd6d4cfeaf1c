"""Class-wise normalisation of the regression targets (Fast R-CNN, section 2.3: zero mean, unit variance).

Training uses normalised targets; the export folds mean and deviation into the last layer, so that a
checkpoint's deltas are raw. Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.detector.network import FastRCNN

TYPICAL_STD = (0.1, 0.1, 0.2, 0.2)
MIN_EXAMPLES = 10  # with fewer of a class, its own mean and deviation are unreliable


@dataclass(frozen=True)
class TargetStatistics:
    """Means and deviations of the raw targets; row 0, background, has mean 0 and deviation 1."""

    means: NDArray[np.float32]
    """`(K + 1, 4)`."""
    stds: NDArray[np.float32]
    """`(K + 1, 4)`, positive."""

    def normalise(
        self, targets: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Normalise raw targets `(S, 4)` by the row's class; background stays 0."""
        normalised = (targets - self.means[labels]) / self.stds[labels]
        return np.where(labels[:, None] > 0, normalised, np.float32(0)).astype(np.float32)


class TargetMoments:
    """Count, sum and sum of squares per class, to estimate the statistics from."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(num_classes + 1, np.int64)
        self.sums = np.zeros((num_classes + 1, 4))
        self.squares = np.zeros((num_classes + 1, 4))

    def add(self, targets: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Add the foreground among raw targets `(S, 4)` with labels `(S,)`."""
        foreground = targets[labels > 0].astype(np.float64)
        classes = labels[labels > 0]
        np.add.at(self.counts, classes, 1)
        np.add.at(self.sums, classes, foreground)
        np.add.at(self.squares, classes, foreground**2)

    def compute_statistics(self) -> TargetStatistics:
        """Compute mean and deviation per class; with under 10 examples they are (0; .1, .1, .2, .2)."""
        has_enough = self.counts[:, None] >= MIN_EXAMPLES
        counts = np.maximum(self.counts, 1)[:, None]
        means = np.where(has_enough, self.sums / counts, 0.0)
        spread = np.sqrt(np.maximum(self.squares / counts - means**2, 0.0))
        stds = np.where(has_enough & (spread > 1e-3), spread, TYPICAL_STD)
        means[0], stds[0] = 0.0, 1.0
        return TargetStatistics(means.astype(np.float32), stds.astype(np.float32))


def fold_targets(network: FastRCNN, means: NDArray[np.float32], stds: NDArray[np.float32]) -> None:
    """Make the network's deltas raw: fold means and stds `(K + 1, 4)` into its last layer, in place."""
    layer = network.bbox_pred
    spread = layer.weight.new_tensor(stds.reshape(-1))
    layer.weight.data.mul_(spread[:, None])
    layer.bias.data.mul_(spread).add_(layer.bias.new_tensor(means.reshape(-1)))
