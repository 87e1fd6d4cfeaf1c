"""Average precision over resampled images: the detections are matched once, images only weighted.

An image that a resample draws w times counts like w copies of it: its detections are w times true or
false, its objects w times to be found. That is what duplicating the rows would give, because copies have
equal scores and stand together in the ranking (but where an image has equal scores itself: there copies
would take turns).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.matches import ClassMatches

Weights = NDArray[np.int32]


def resampled(images: int, samples: int, seed: int, at_once: int = 64) -> Iterator[Weights]:
    """Weights `(B, images)` of `at_once` resamples after others, `samples` in all.

    Each resample draws as many images as there are, with replacement. Equal seeds draw equally,
    however many are given at once.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, samples, at_once):
        count = min(at_once, samples - start)
        drawn = [generator.integers(images, size=images) for _ in range(count)]
        rows = [np.bincount(numbers, minlength=images) for numbers in drawn]
        yield np.stack(rows).astype(np.int32)


def weighted_average_precision(
    found: ClassMatches, weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """11-point and area AP `(B,)` of one class under B weightings of the images `(B, P)`.

    NaN where a weighting leaves the class no object.
    """
    objects = np.take(weights, found.objects, axis=1).sum(axis=1)
    undefined = objects == 0
    hits = np.flatnonzero(found.hits)
    if len(hits) == 0:
        nothing = np.where(undefined, np.nan, 0.0)
        return nothing, nothing
    # Only at true detections can the precision be highest for its recall.
    drawn = np.take(weights, found.images[: hits[-1] + 1], axis=1)
    ranked = np.cumsum(drawn, axis=1, dtype=np.int32)[:, hits]
    gained = np.take(weights, found.images[hits], axis=1)
    true = np.cumsum(gained, axis=1, dtype=np.int32)
    precision = np.divide(true, ranked, out=np.zeros(true.shape), where=ranked > 0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (gained * envelope).sum(axis=1) / np.maximum(objects, 1)
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    eleven = np.zeros(len(objects))
    for tenth in range(11):
        # Recall of at least tenth / 10, asked in whole objects.
        reached = (10 * true < tenth * objects[:, None]).sum(axis=1)
        eleven += np.take_along_axis(padded, reached[:, None], axis=1)[:, 0]
    return np.where(undefined, np.nan, eleven / 11), np.where(undefined, np.nan, area)
