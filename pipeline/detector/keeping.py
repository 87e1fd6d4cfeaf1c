"""Which of the scored boxes are kept as detections."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from pipeline import geometry
from pipeline.detector.keep import Keep


def kept(
    scores: Tensor, deltas: Tensor, boxes: Tensor, size: tuple[int, int], keep: Keep
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of one image: boxes `(D, 4)`, scores `(D,)`, labels `(D,)`, best first.

    Args:
        scores: `(R, K + 1)` softmax, background first.
        deltas: `(R, K + 1, 4)`, raw.
        boxes: the RoIs `(R, 4)` in pixels of the image.
        size: the image's height and width.
        keep: the rule.

    Labels count the classes from 0. Equal scores keep the order of class and RoI.
    """
    roi, label = _candidates(scores[:, 1:], keep)
    found = geometry.decode(deltas[roi, label + 1][:, None], boxes[roi])[:, 0]
    found = geometry.clip(found, size[1], size[0])
    solid = geometry.nonempty(found)
    found, roi, label = found[solid], roi[solid], label[solid]
    value = scores[roi, label + 1]
    # In double precision: classes are kept apart by shifting their boxes far away from each other.
    survivors = batched_nms(found.double(), value.double(), label, keep.nms_iou).sort().values
    order = survivors[value[survivors].argsort(descending=True, stable=True)]
    if keep.rule == "default":
        order = order[: keep.max_per_image]
    return found[order], value[order], label[order]


def _candidates(scores: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
    """RoI and class `(M,)` of what goes into NMS, by class, from scores `(R, K)`."""
    if keep.rule == "default":
        label, roi = torch.nonzero(keep.score_threshold <= scores.T, as_tuple=True)
        return roi, label
    best = scores.argsort(dim=0, descending=True, stable=True)[: keep.max_per_image]
    label = torch.arange(scores.shape[1], device=scores.device).repeat_interleave(len(best))
    return best.T.reshape(-1), label
