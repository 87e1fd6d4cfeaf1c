"""How suspect a box of an annotation is, from how reliable scores are over all images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.score_reliability import ScoreReliability


def rate_suspects(
    suspects: NDArray[np.void], reliability: ScoreReliability, reality: ScoreReliability
) -> NDArray[np.float64]:
    """Return the suspicion of each suspect, 0 to 1.

    Args:
        suspects: of `SUSPECT`.
        reliability: how likely a detection is true.
        reality: how likely a detection is true rather than of nothing.
    """
    p = _rate(reliability, suspects["suggested_class_id"], suspects["score"])
    real = _rate(reality, suspects["suggested_class_id"], suspects["score"])
    q = _rate(reliability, suspects["rival_class_id"], suspects["rival_score"])
    iou, rival_iou = np.nan_to_num(suspects["iou"]), np.nan_to_num(suspects["rival_iou"])
    is_unexplained = np.where(suspects["is_explained"], 0.5, 1)
    supporters = _rate(reliability, suspects["supporter_class_id"], suspects["supporter_score"])
    rated = [
        real * (1 - np.nan_to_num(suspects["inside"])) * (1 - 0.5 * suspects["held"]),
        p * iou * (1 - q),
        real * np.clip(1.3 - 2 * iou, 0, 1) * (1 - q * np.clip((rival_iou - iou) / 0.3, 0, 1)),
        np.prod(1 - supporters * suspects["supporter_fit"], axis=1) * is_unexplained,
    ]
    suspicion: NDArray[np.float64] = np.clip(np.choose(suspects["kind"], rated), 0, 1)
    return suspicion


def _rate(
    reliability: ScoreReliability, class_id: NDArray[np.int32], scores: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The probability of detections; 0 where there is none."""
    rated = np.zeros(class_id.shape)
    exists = class_id >= 0
    rated[exists] = reliability.estimate(class_id[exists], scores[exists])
    return rated
