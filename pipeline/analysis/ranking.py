"""Detections with their outcomes as bits, and each class's detections ranked by falling score.

A *variant* is one way to judge a detection: one of COCO's thresholds of IoU within one of its ranges of
area, or VOC's rule. Each is one bit of two masks: the detection is true, or it is
ignored; without either it is false. So 24 bytes per detection are enough for all average precisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import AREA_RANGES

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's thresholds of IoU, to the last bit those of pycocotools, in the order of their bits."""
COCO_VARIANTS = len(AREA_RANGES) * len(IOU_THRESHOLDS)
VOC_VARIANT = COCO_VARIANTS
"""The bit of VOC's rule at IoU 0.5; bit `10 * area + threshold` is COCO's."""
COCO_RANKS = 100
"""COCO looks at as many detections of an image and class, best first."""

Mask = NDArray[np.uint64]


@dataclass(frozen=True)
class RankingRows:
    """Some images' detections as average precision needs them.

    The rows are in the order of the manifest, and those of an image and class by falling score: in this
    order detections of equal score are ranked.
    """

    class_id: NDArray[np.int32]
    """`(D,)`"""
    score: NDArray[np.float32]
    """`(D,)`, no NaN."""
    true_mask: Mask
    """`(D,)` bit v is set if the detection is true in variant v."""
    ignored_mask: Mask
    """`(D,)` bit v is set if variant v counts the detection neither as true nor as false."""

    def __len__(self) -> int:
        return len(self.class_id)

    def select(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> RankingRows:
        """Return some of the rows."""
        return RankingRows(
            self.class_id[index],
            self.score[index],
            self.true_mask[index],
            self.ignored_mask[index],
        )

    def sort(self) -> RankingRows:
        """Return the rows by class, then by falling score; equal scores stay in order."""
        keys = self.class_id.astype(np.uint64) << np.uint64(32)
        keys |= compute_falling_keys(self.score)
        return self.select(np.argsort(keys, kind="stable"))


def concatenate_rows(pieces: Sequence[RankingRows]) -> RankingRows:
    """Join rows of images that follow each other in the manifest."""
    return RankingRows(
        np.concatenate([np.empty(0, np.int32), *(piece.class_id for piece in pieces)]),
        np.concatenate([np.empty(0, np.float32), *(piece.score for piece in pieces)]),
        np.concatenate([np.empty(0, np.uint64), *(piece.true_mask for piece in pieces)]),
        np.concatenate([np.empty(0, np.uint64), *(piece.ignored_mask for piece in pieces)]),
    )


def compute_falling_keys(score: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return numbers that rise where scores fall, equal for equal scores.

    The bits of a positive float rise with it, and those of a negative one fall.
    """
    bits = (score + np.float32(0)).view(np.uint32)  # 0 and -0 are equal scores
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))


def pack_masks(
    coco: Sequence[NDArray[np.int16]], voc: NDArray[np.bool_], rank: NDArray[np.int32] | None = None
) -> Mask:
    """Join COCO's masks of ten bits and VOC's outcome into one mask `(D,)`.

    Args:
        coco: the masks `(D,)` of each range of area, in the order of AREA_RANGES.
        voc: whether VOC's bit is set, `(D,)`.
        rank: for a mask of what is ignored: the detections' ranks `(D,)`; COCO's bits are set from rank
            100 on, because COCO does not look at these detections.
    """
    mask = voc.astype(np.uint64) << np.uint64(VOC_VARIANT)
    for index, bits in enumerate(coco):
        mask |= bits.astype(np.uint64) << np.uint64(len(IOU_THRESHOLDS) * index)
    if rank is not None:
        mask[rank >= COCO_RANKS] |= np.uint64((1 << COCO_VARIANTS) - 1)
    return mask
