"""From measured images to totals over all images, with intervals by bootstrap over the measured ones.

Within each stratum n - 1 of the n measured images are drawn with replacement, which makes the variance of the
resampled mean that of the mean itself (McCarthy and Snowden, The bootstrap and finite population sampling,
1985). If a stratum is measured as a whole, its mean has no variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LOW, HIGH = 2.5, 97.5
"""Percentiles of an interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MeasuredStratum:
    """The images of a stratum that were measured."""

    images: int
    """Images in the stratum."""
    values: NDArray[np.float64]
    """`(n, F)`: F figures of each measured image."""


def merge_sparse(strata: Sequence[MeasuredStratum]) -> list[MeasuredStratum]:
    """Join strata of fewer than two measured images with a neighbour, unless they have no other image."""
    merged: list[MeasuredStratum] = []
    for stratum in strata:
        joined = stratum
        if merged and (_is_sparse(stratum) or _is_sparse(merged[-1])):
            last = merged.pop()
            joined = MeasuredStratum(
                last.images + stratum.images, np.concatenate([last.values, stratum.values])
            )
        merged.append(joined)
    return merged


def _is_sparse(stratum: MeasuredStratum) -> bool:
    return len(stratum.values) < min(2, stratum.images)


def resample_totals(strata: Sequence[MeasuredStratum], seed: int = 0) -> NDArray[np.float64]:
    """Totals `(1 + RESAMPLES, F)` over all images: the estimates, then those of each resample.

    Figures that are computed from a row belong together, so an interval of any function of the totals is
    `summarise` of that function's values.
    """
    random = np.random.default_rng(seed)
    totals = np.zeros(1)
    for stratum in merge_sparse(strata):
        count = len(stratum.values)
        mean = stratum.values.mean(axis=0)
        means = np.tile(mean, (1 + RESAMPLES, 1))
        if 1 < count < stratum.images:
            drawn = random.integers(count, size=(RESAMPLES, count - 1))
            spread = (1 - count / stratum.images) ** 0.5
            means[1:] += spread * (stratum.values[drawn].mean(axis=1) - mean)
        totals = totals + stratum.images * means
    return np.asarray(totals)


def summarise(values: NDArray[np.float64]) -> Estimate:
    """The estimate `values[0]` with the interval that the resamples `values[1:]` give."""
    low, high = np.percentile(values[1:], [LOW, HIGH])
    return Estimate(float(values[0]), float(low), float(high))
