"""Sampling of the RoIs of one image for a training step (Fast R-CNN, section 2.3, mini-batch sampling).

Importing this loads no torch: CPU tasks sample ahead of the training workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry

CROWD_COVER = 0.7  # a proposal with this share of its area in a crowd is not a background example


class SampledRois(NamedTuple):
    """The sample of one image, foreground first."""

    boxes: NDArray[np.float32]
    """`(S, 4)`, in the pixels of the proposals."""
    labels: NDArray[np.int64]
    """`(S,)`: 0 is background, class c of the manifest is c + 1."""
    targets: NDArray[np.float32]
    """`(S, 4)`: raw regression targets; 0 for background."""
    iou: NDArray[np.float32]
    """`(S,)`: IoU with the matched object."""


def sample_rois(
    proposals: NDArray[np.float32],
    gt_boxes: NDArray[np.float32],
    gt_labels: NDArray[np.integer],
    gt_crowd: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    rois_per_image: int = 64,
    fg_fraction: float = 0.25,
    fg_iou: float = 0.5,
    bg_iou: tuple[float, float] = (0.1, 0.5),
    widen_background: bool = False,
) -> SampledRois:
    """Sample up to `rois_per_image` RoIs without replacement, at most `fg_fraction` of them foreground.

    Args:
        proposals: `(P, 4)`.
        gt_boxes: `(G, 4)` objects; all but crowds join the proposals.
        gt_labels: `(G,)`, from 1.
        gt_crowd: `(G,)`: crowds are never foreground, and proposals inside a crowd are not background.
        rng: keyed by (seed, epoch, image_id).
        rois_per_image: 64 in the paper, for each of 2 images.
        fg_fraction: maximum share of foreground; background fills the rest.
        fg_iou: a RoI is foreground if its IoU with its best object is at least this.
        bg_iou: background has an IoU in [low, high).
        widen_background: if no RoI has an IoU in that range, widen it to [0, high), so that images without
            objects still teach background. The released code does not.

    Returns fewer RoIs if there are not enough of a kind, and none without candidates.
    """
    objects, classes = gt_boxes[~gt_crowd], gt_labels[~gt_crowd]
    candidates = np.concatenate([proposals, objects]).astype(np.float32)
    best_iou, match = _match_objects(candidates, objects)
    foreground = np.flatnonzero(best_iou >= fg_iou)
    below = (best_iou < min(bg_iou[1], fg_iou)) & ~is_in_crowd(candidates, gt_boxes[gt_crowd])
    background = np.flatnonzero(below & (best_iou >= bg_iou[0]))
    if widen_background and not len(background):
        background = np.flatnonzero(below)

    quota = round(fg_fraction * rois_per_image)
    foreground = rng.permutation(foreground)[:quota]
    background = rng.permutation(background)[: rois_per_image - len(foreground)]
    chosen = np.concatenate([foreground, background])

    labels = np.zeros(len(chosen), np.int64)
    targets = np.zeros((len(chosen), 4), np.float32)
    if len(foreground):
        labels[: len(foreground)] = classes[match[foreground]]
        targets[: len(foreground)] = geometry.encode_deltas(
            objects[match[foreground]], candidates[foreground]
        )
    return SampledRois(candidates[chosen], labels, targets, best_iou[chosen])


def _match_objects(
    candidates: NDArray[np.float32], objects: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Find each candidate's largest IoU with an object, and the index of that object."""
    if not len(objects):
        return np.zeros(len(candidates), np.float32), np.zeros(len(candidates), np.intp)
    best, match = geometry.find_best_overlaps(candidates, objects.astype(np.float32))
    return best, match


def is_in_crowd(candidates: NDArray[np.float32], crowds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each box `(N, 4)` lies in a crowd `(M, 4)`, by `CROWD_COVER`: it says nothing of background."""
    if not len(crowds):
        return np.zeros(len(candidates), bool)
    shared = geometry.intersection(candidates, crowds.astype(np.float32))
    inside: NDArray[np.bool_] = shared.max(axis=1) >= CROWD_COVER * geometry.area(candidates)
    return inside
