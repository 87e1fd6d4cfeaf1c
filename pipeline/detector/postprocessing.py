"""From the scored boxes of an image to its detections: threshold or cap, NMS, order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from pipeline import geometry
from pipeline.detector.postprocessing_settings import PostprocessingSettings


def select_detections(
    scores: Tensor,
    deltas: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    settings: PostprocessingSettings,
) -> tuple[Tensor, Tensor, Tensor]:
    """Select the detections of one image: boxes `(D, 4)`, scores `(D,)`, labels `(D,)`, best first.

    Args:
        scores: `(R, K + 1)` softmax, background first.
        deltas: `(R, K + 1, 4)`, raw.
        rois: `(R, 4)` in pixels of the image.
        size: the image's height and width.
        settings: thresholds, cap and rule.

    Labels count the classes from 0. Equal scores keep the order of class and RoI.
    """
    boxes, score, label, _ = select_with_rois(scores, deltas, rois, size, settings)
    return boxes, score, label


def select_with_rois(
    scores: Tensor,
    deltas: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    settings: PostprocessingSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select detections as `select_detections` does, and return the row `(D,)` of each one's RoI too."""
    roi, label = _select_candidates(scores[:, 1:], settings)
    boxes = rois[roi]
    if settings.refine_boxes:
        boxes = geometry.decode_deltas(deltas[roi, label + 1][:, None], boxes)[:, 0]
    boxes = geometry.clip(boxes, size[1], size[0])
    # Indices, not a mask: a GPU's host waits for the number of rows once, not for each tensor.
    solid = torch.nonzero(geometry.is_nonempty(boxes)).squeeze(1)
    boxes, roi, label = boxes[solid], roi[solid], label[solid]
    score = scores[roi, label + 1]
    # Double precision, because `batched_nms` separates the classes by shifting their boxes far apart.
    limit = _choose_iou_limit(settings, boxes.device)
    survivors = batched_nms(boxes.double(), score.double(), label, limit).sort().values
    order = survivors[score[survivors].argsort(descending=True, stable=True)]
    if settings.rule == "default":
        order = order[: settings.max_per_image]
    return boxes[order], score[order], label[order], roi[order]


def list_candidate_scores(scores: Tensor, settings: PostprocessingSettings) -> Tensor:
    """List the scores of the boxes that enter NMS under the rule `paper`, `(K * C,)`: by class, best first.

    The thresholds of a run are chosen among them (`pipeline/runs/threshold_selection.py`).

    Args:
        scores: `(R, K + 1)` softmax, background first.
        settings: C is the smaller of R and `max_per_image`.
    """
    count = min(len(scores), settings.max_per_image)
    return scores[:, 1:].topk(count, dim=0).values.T.reshape(-1)


def _choose_iou_limit(settings: PostprocessingSettings, device: torch.device) -> float:
    """The IoU above which torchvision drops a box; the released code drops at `nms_iou` itself."""
    if settings.rule == "default":
        return settings.nms_iou
    # CUDA's kernel compares with a float32.
    number = np.float64(settings.nms_iou) if device.type == "cpu" else np.float32(settings.nms_iou)
    return float(np.nextafter(number, type(number)(0)))


def _select_candidates(scores: Tensor, settings: PostprocessingSettings) -> tuple[Tensor, Tensor]:
    """Select RoI and class `(M,)` of the boxes that enter NMS, by class, from scores `(R, K)`."""
    if settings.rule == "default":
        label, roi = torch.nonzero(settings.score_threshold <= scores.T, as_tuple=True)
        return roi, label
    best = scores.argsort(dim=0, descending=True, stable=True)[: settings.max_per_image]
    label = torch.arange(scores.shape[1], device=scores.device).repeat_interleave(len(best))
    return best.T.reshape(-1), label
