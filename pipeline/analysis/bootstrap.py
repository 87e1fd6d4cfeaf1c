"""Average precision over resampled images: detections are matched once, resamples only weight the images.

An image that a resample draws w times counts like w copies of it: its detections are true or false w
times, and its objects must be found w times. Duplicating the rows would give the same, because copies
have equal scores and are adjacent in the ranking. The exception is an image with equal scores of its own:
its copies would alternate.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.run_matches import ClassMatches

Weights = NDArray[np.int32]


def draw_resamples(images: int, samples: int, seed: int, batch_size: int = 64) -> Iterator[Weights]:
    """Yield weights int32 `(B, images)` of up to `batch_size` resamples, `samples` in all.

    Each resample draws `images` images with replacement. The draws depend on the seed alone, not on
    the batch size.
    """
    generator = np.random.default_rng(seed)
    for start in range(0, samples, batch_size):
        count = min(batch_size, samples - start)
        draws = [generator.integers(images, size=images) for _ in range(count)]
        weights = [np.bincount(numbers, minlength=images) for numbers in draws]
        yield np.stack(weights).astype(np.int32)


def score_resamples(
    matches: ClassMatches, weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the 11-point and area AP `(B,)` of one class under B weightings of the images `(B, P)`.

    An AP is NaN if the weighting leaves the class without objects.
    """
    objects = np.take(weights, matches.objects, axis=1).sum(axis=1)
    is_undefined = objects == 0
    hits = np.flatnonzero(matches.hits)
    if len(hits) == 0:
        zeros = np.where(is_undefined, np.nan, 0.0)
        return zeros, zeros
    # The precision can be highest for its recall only at a true detection.
    draws = np.take(weights, matches.images[: hits[-1] + 1], axis=1)
    ranks = np.cumsum(draws, axis=1, dtype=np.int32)[:, hits]
    gains = np.take(weights, matches.images[hits], axis=1)
    true_positives = np.cumsum(gains, axis=1, dtype=np.int32)
    precision = np.divide(
        true_positives, ranks, out=np.zeros(true_positives.shape), where=ranks > 0
    )
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (gains * envelope).sum(axis=1) / np.maximum(objects, 1)
    padded = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    eleven_point = np.zeros(len(objects))
    for tenth in range(11):
        # Recall of at least tenth / 10, tested in whole objects.

        first_reached = (10 * true_positives < tenth * objects[:, None]).sum(axis=1)
        eleven_point += np.take_along_axis(padded, first_reached[:, None], axis=1)[:, 0]
    return np.where(is_undefined, np.nan, eleven_point / 11), np.where(is_undefined, np.nan, area)
