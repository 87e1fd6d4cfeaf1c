"""Weights of a Poisson bootstrap over images, each a function of the seed, the image and the resample.

A resample counts each image w times, with w drawn from a Poisson distribution of mean 1: for more than some
hundred images, the same as drawing as many images with replacement (Chamandy et al., Estimating uncertainty
for massive data streams, 2012). No draw depends on another image, so the weights are the same however the
images are grouped. An image is its row in the manifest.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_INCREMENT = 0x9E3779B97F4A7C15
_TABLE_BITS = 16


def hash_rows(rows: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return a number per row `(P,)` that looks random and is another one for every seed."""
    start = _mix(np.array([seed & (2**64 - 1)], np.uint64))
    return _mix(rows.astype(np.uint64) * np.uint64(_INCREMENT) ^ start)


def draw_weights(
    rows: NDArray[np.int64], resamples: int, seed: int, mean: float = 1.0
) -> NDArray[np.uint16]:
    """Return the weight of each image in each resample, uint16 `(P, resamples)`.

    Args:
        rows: the images' rows in the manifest `(P,)`.
        resamples: the number of resamples.
        seed: any integer.
        mean: the mean weight; n / m if the P = m images stand for n.
    """
    table = _tabulate_quantiles(mean)
    weights = np.empty((len(rows), resamples), np.uint16)
    states = hash_rows(rows, seed)
    steps = np.arange(1, resamples + 1, dtype=np.uint64) * np.uint64(_INCREMENT)
    for start in range(0, len(rows), 1024):
        draws = _mix(states[start : start + 1024, None] + steps)
        weights[start : start + 1024] = table[draws >> np.uint64(64 - _TABLE_BITS)]
    return weights


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _tabulate_quantiles(mean: float) -> NDArray[np.uint16]:
    """The Poisson quantiles of 2^16 evenly spaced probabilities."""
    largest = int(mean + 12 * math.sqrt(mean) + 24)
    counts = np.arange(largest + 1)
    logarithms = np.cumsum(np.append(0.0, np.log(np.arange(1, largest + 1))))
    cumulative = np.cumsum(np.exp(counts * math.log(mean) - mean - logarithms))
    probabilities = (np.arange(2**_TABLE_BITS) + 0.5) / 2**_TABLE_BITS
    quantiles: NDArray[np.uint16] = np.searchsorted(cumulative, probabilities).astype(np.uint16)
    return quantiles
