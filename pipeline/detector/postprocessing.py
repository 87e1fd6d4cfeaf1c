"""From the scored boxes of images to their detections: threshold or cap, NMS, order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from pipeline import geometry
from pipeline.detector.host_transfer import move_array
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
    selected = select_in_images(scores, deltas, rois, [len(scores)], [size], settings=settings)
    most = settings.most_detections
    return selected.boxes[:most], selected.scores[:most], selected.labels[:most]


class SelectedBoxes(NamedTuple):
    """Detections of one image or of several; those of an image follow each other, best first."""

    boxes: Tensor
    """`(D, 4)`."""
    scores: Tensor
    """`(D,)`."""
    labels: Tensor
    """`(D,)`: classes counted from 0."""
    rows: Tensor
    """`(D,)`: rows of their RoIs."""
    images: Tensor
    """`(D,)`: index of the image."""


def select_in_images(
    scores: Tensor,
    deltas: Tensor,
    rois: Tensor,
    counts: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    *,
    settings: PostprocessingSettings,
) -> SelectedBoxes:
    """Select the detections of several images, as `select_detections` does for one, but without its cap.

    For all images together, since a GPU's host waits as often for many images as for one.

    Args:
        scores: `(R, K + 1)` softmax of all RoIs, in the order of the images.
        deltas: `(R, K + 1, 4)`, raw.
        rois: `(R, 4)` in pixels of their images.
        counts: number of RoIs of each image.
        sizes: height and width of each image.
        settings: thresholds and rule.
    """
    device = scores.device
    row, label = _select_candidates(scores[:, 1:], counts, settings)
    image_of_row = move_array(np.repeat(np.arange(len(counts)), counts), device)
    limits = np.array([[width, height, width, height] for height, width in sizes], np.float32)
    boxes, image = rois[row], image_of_row[row]
    if settings.refine_boxes:
        boxes = geometry.decode_deltas(deltas[row, label + 1][:, None], boxes)[:, 0]
    boxes = boxes.clamp(min=0).minimum(move_array(limits, device).to(boxes.dtype)[image])
    # Indices, not a mask: a GPU's host waits for the number of rows once, not for each tensor.
    solid = torch.nonzero(geometry.is_nonempty(boxes)).squeeze(1)
    boxes, row, label, image = boxes[solid], row[solid], label[solid], image[solid]
    score = scores[row, label + 1]
    group = image * (scores.shape[1] - 1) + label
    survivors = _suppress(boxes, score, group, image, settings).sort().values
    order = survivors[score[survivors].argsort(descending=True, stable=True)]
    if len(counts) > 1:
        order = order[image[order].argsort(stable=True)]
    return SelectedBoxes(*(values[order] for values in (boxes, score, label, row, image)))


MOST_TOGETHER = {"cpu": 1000, "cuda": 20_000}
"""Boxes that NMS compares all with all, whatever their groups; more are compared group by group."""


def _suppress(
    boxes: Tensor, score: Tensor, group: Tensor, image: Tensor, settings: PostprocessingSettings
) -> Tensor:
    """Return the indices of the boxes `(M, 4)` that NMS keeps; only those of a group suppress each other."""
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    limit = _choose_iou_limit(settings, boxes.device)
    most = MOST_TOGETHER.get(boxes.device.type, MOST_TOGETHER["cpu"])
    # Double precision, because groups are separated by shifting their boxes far apart.
    boxes, score = boxes.double(), score.double()
    if len(boxes) <= most:
        kept: Tensor = nms(boxes + (group * (boxes.max() + 1))[:, None], score, limit)
        return kept
    # Image by image, since those of a single image may be few enough.
    parts = [torch.nonzero(image == number).squeeze(1) for number in torch.unique(image)]
    return torch.cat(
        [part[batched_nms(boxes[part], score[part], group[part], limit)] for part in parts]
    )


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


def _select_candidates(
    scores: Tensor, counts: Sequence[int], settings: PostprocessingSettings
) -> tuple[Tensor, Tensor]:
    """Select row and class `(M,)` of the boxes that enter NMS, by class and row within an image.

    `scores` are `(R, K)`, of as many rows per image as `counts` says.
    """
    if settings.rule == "default":
        label, row = torch.nonzero(settings.score_threshold <= scores.T, as_tuple=True)
        return row, label
    rows, labels, first = [], [], 0
    for of_image in torch.split(scores, list(counts)):
        best = of_image.argsort(dim=0, descending=True, stable=True)[: settings.max_per_image]
        rows.append(best.T.reshape(-1) + first)
        label = torch.arange(scores.shape[1], device=scores.device)
        labels.append(label.repeat_interleave(len(best)))
        first += len(of_image)
    return torch.cat(rows), torch.cat(labels)
