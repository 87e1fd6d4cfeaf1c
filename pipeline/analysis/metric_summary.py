"""The numbers of `DetectionMetrics` from sums over matches and the ranked classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.detection_metrics import ClassMetrics, DetectionMetrics
from pipeline.analysis.image_counts import ImageCounts
from pipeline.analysis.image_coverage import describe_coverage, describe_mismatches
from pipeline.analysis.match_sums import RECALL_RANKS, VARIANTS, MatchSums
from pipeline.analysis.ranked_precision import ClassPrecision
from pipeline.analysis.ranking import COCO_VARIANTS, IOU_THRESHOLDS, VOC_VARIANT
from pipeline.schema import AREA_RANGES


def summarize_detections(
    classes: Sequence[str],
    images: ImageCounts,
    manifest_images: int,
    sums: MatchSums,
    precision: Sequence[ClassPrecision],
    *,
    notes: Sequence[str] = (),
    is_partial: bool = False,
) -> DetectionMetrics:
    """Summarize all matches.

    Args:
        classes: the K classes that are scored.
        images: the images that the matches cover.
        manifest_images: images in the manifest.
        sums: sums over the matches of these classes.
        precision: the ranked detections of each class.
        notes: sentences that come before those about the images.
        is_partial: whether the matches are of an unfinished run.
    """
    ap = _split_coco(np.array([of_class.coco_ap for of_class in precision], np.float64))
    recall = _compute_recall(sums)
    eleven_point, area = (
        np.array([getattr(of_class, name)[VOC_VARIANT] for of_class in precision], np.float64)
        for name in ("eleven_point_ap", "area_ap")
    )
    expected_images = images.images if is_partial else manifest_images
    by_size = dict(zip(AREA_RANGES[1:], range(1, len(AREA_RANGES)), strict=True))
    return DetectionMetrics(
        voc07_map50=average_defined(eleven_point),
        voc_map50=average_defined(area),
        coco_ap=average_defined(ap[:, 0]),
        coco_ap50=average_defined(ap[:, 0, 0]),
        coco_ap75=average_defined(ap[:, 0, 5]),
        **{f"coco_ap_{size}": average_defined(ap[:, index]) for size, index in by_size.items()},
        **{
            f"coco_ar_{rank}": average_defined(recall[:, 0, :, index])
            for index, rank in enumerate(RECALL_RANKS)
        },
        **{
            f"coco_ar_{size}": average_defined(recall[:, index, :, -1])
            for size, index in by_size.items()
        },
        images=images.images,
        manifest_images=manifest_images,
        unlabelled=images.unlabelled,
        failed=images.failed.total(),
        failed_by_reason=dict(sorted(images.failed.items())),
        objects=int(sums.objects[:, VOC_VARIANT].sum()),
        detections=sums.detections,
        per_class=_summarize_classes(classes, sums, (eleven_point, area), ap, recall),
        notes=(
            *notes,
            *describe_coverage(images.images, expected_images, images.unlabelled),
            *describe_mismatches(images.failed),
        ),
        partial=is_partial,
    )


def _summarize_classes(
    classes: Sequence[str],
    sums: MatchSums,
    voc: tuple[NDArray[np.float64], NDArray[np.float64]],
    ap: NDArray[np.float64],
    recall: NDArray[np.float64],
) -> tuple[ClassMetrics, ...]:
    """Summarize each class, from VOC's two APs `(K,)` and COCO's AP and recall, both by class first."""
    return tuple(
        ClassMetrics(
            label,
            int(sums.objects[k, VOC_VARIANT]),
            int(sums.class_detections[k]),
            average_defined(voc[0][k : k + 1]),
            average_defined(voc[1][k : k + 1]),
            average_defined(ap[k, 0]),
            average_defined(ap[k, 0, :1]),
            average_defined(recall[k, 0, :, -1]),
        )
        for k, label in enumerate(classes)
    )


def _split_coco(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reshape `(K, V)` to class, range of area and threshold, without VOC's rule."""
    values = values.reshape(len(values), VARIANTS)[:, :COCO_VARIANTS]
    return values.reshape(len(values), len(AREA_RANGES), len(IOU_THRESHOLDS))


def _compute_recall(sums: MatchSums) -> NDArray[np.float64]:
    """Compute recall by class, range of area, threshold and number of detections; NaN without objects."""
    objects = sums.objects[:, :COCO_VARIANTS, None]
    recall = np.where(objects > 0, sums.recalled / np.maximum(objects, 1), np.nan)
    shape = (len(recall), len(AREA_RANGES), len(IOU_THRESHOLDS), len(RECALL_RANKS))
    return recall.reshape(shape)


def average_defined(values: NDArray[np.float64]) -> float | None:
    """The mean of the numbers that are not NaN, or None if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
