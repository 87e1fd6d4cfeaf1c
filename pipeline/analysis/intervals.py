"""Intervals of average precision by a bootstrap over images: `bootstrap_precision(resampler, classes)`.

The percentiles 2.5 and 97.5 over the resamples (Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13). They say how far another sample of images could move a figure; they do not cover the
variation between trainings with different seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.estimate import Estimate
from pipeline.analysis.match_outcomes import find_objects
from pipeline.analysis.matching import Matches
from pipeline.analysis.ranking import COCO_RANKS
from pipeline.analysis.recall_intervals import find_area_ranges, resample_recalls
from pipeline.analysis.resampled_precision import (
    COCO_RULES,
    FIGURES,
    LANES,
    VOC_RULE,
    score_weightings,
)
from pipeline.analysis.resampling import Resampler
from pipeline.schema import AREA_RANGES

MaskBuilder = Callable[[Matches, NDArray[np.int64]], tuple[NDArray[np.uint16], NDArray[np.uint16]]]
"""Returns the masks of true and of ignored detections, for the rows of some detections."""

_ALL_COCO = np.uint16((1 << COCO_RULES) - 1)
_VOC_BIT = np.uint16(1 << VOC_RULE)


@dataclass(frozen=True)
class ClassIntervals:
    """Average precision of one class, with intervals."""

    label: str
    coco_ap: Estimate
    """COCO's AP over IoU 0.50:0.05:0.95."""
    coco_ap50: Estimate
    ap11: Estimate
    """VOC2007's 11-point AP at IoU 0.5."""
    ap_area: Estimate
    """VOC2010's area AP at IoU 0.5."""


@dataclass(frozen=True)
class PrecisionIntervals:
    """Average precision with intervals; means are over the classes that have objects in a resample."""

    coco_ap: Estimate
    coco_ap50: Estimate
    coco_ap75: Estimate
    voc07_map50: Estimate
    voc_map50: Estimate
    per_class: tuple[ClassIntervals, ...]
    images: int
    """Images that are resampled."""
    resamples: int
    seed: int
    confidence: float
    further: Mapping[str, Estimate] = field(default_factory=dict)
    """COCO's AP by size and its average recalls, by their names in metrics.json."""

    def list_intervals(self) -> dict[str, list[float] | None]:
        """Return `[low, high]` by the name of each mean, None if it is undefined."""
        intervals: dict[str, list[float] | None] = {}
        names = ("coco_ap", "coco_ap50", "coco_ap75", "voc07_map50", "voc_map50")
        estimates = {**{name: getattr(self, name) for name in names}, **self.further}
        for name, estimate in estimates.items():
            low, high = estimate.low, estimate.high
            intervals[name] = None if low is None or high is None else [low, high]
        return intervals


def resample_precision(resampler: Resampler, classes: int) -> NDArray[np.float64]:
    """Compute the figures of each class, `(classes, FIGURES, 1 + R)`; NaN without objects.

    The first weighting is the sample of images itself; the order of the figures is that of
    `resampled_precision.FIGURES`. The weights depend on seed and image, so the figures of two runs over the
    same images are paired.
    """
    objects = np.flatnonzero(find_objects(resampler.matches))
    return _resample(resampler, classes, _build_masks, objects)


def resample_size_precision(resampler: Resampler, classes: int) -> dict[str, NDArray[np.float64]]:
    """Compute `coco_ap_small`, `coco_ap_medium` and `coco_ap_large`, each `(1 + R,)`; NaN without objects."""
    matches = resampler.matches
    objects = np.flatnonzero(find_objects(matches))
    is_inside = find_area_ranges(matches, objects)
    means = {}
    for index, size in enumerate(AREA_RANGES[1:], 1):
        build_masks = partial(_build_size_masks, size)
        figures = _resample(resampler, classes, build_masks, objects[is_inside[:, index]])
        means[f"coco_ap_{size}"] = average_defined(figures[:, :COCO_RULES].mean(axis=1))
    return means


def _resample(
    resampler: Resampler,
    classes: int,
    build_masks: MaskBuilder,
    objects: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Compute the figures of each class, `(classes, FIGURES, 1 + R)`, for the objects of some rows."""
    blocks = split_weights(resampler.weights)
    columns = resampler.weights.shape[1]
    figures = np.full((classes, FIGURES, columns), np.nan)
    for k, rows in enumerate(_split_classes(resampler, classes, build_masks, objects)):
        if len(rows[-1]):
            figures[k] = score_class(*rows, blocks)[:, :columns]
    return figures


def split_weights(weights: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Cut the weights `(images, 1 + R)` into what the kernel takes at a time, `(images, LANES)` each."""
    return [
        np.ascontiguousarray(_pad(weights[:, start : start + LANES]))
        for start in range(0, weights.shape[1], LANES)
    ]


def score_class(
    images: NDArray[np.int64],
    true: NDArray[np.uint16],
    ignored: NDArray[np.uint16],
    objects: NDArray[np.int64],
    blocks: Sequence[NDArray[np.float32]],
) -> NDArray[np.float64]:
    """Compute the figures of one class under all weightings, `(FIGURES, len(blocks) * LANES)`.

    Args:
        images: `(D,)` the image of each detection, best first.
        true: `(D,)` bit r is set if the detection is true by rule r.
        ignored: `(D,)` bit r is set if rule r does not count it.
        objects: `(G,)` the image of each object to find.
        blocks: of `split_weights`.
    """
    figures = np.empty((FIGURES, len(blocks) * LANES))
    for index, block in enumerate(blocks):
        lanes = np.empty((FIGURES, LANES))
        score_weightings(images, true, ignored, objects, block, lanes)
        figures[:, index * LANES : (index + 1) * LANES] = lanes
    return figures


def _pad(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(weights, [(0, 0), (0, LANES - weights.shape[1])])


def _split_classes(
    resampler: Resampler,
    classes: int,
    build_masks: MaskBuilder,
    objects: NDArray[np.int64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]]]:
    """The kernel's input for each class: images, masks of true and ignored, images of the objects."""
    matches = resampler.matches
    detections = np.flatnonzero(matches.is_detection)
    # A stable sort: equal scores stay in the order of the manifest.
    order = np.lexsort((-matches.score[detections], matches.class_id[detections]))
    detections = detections[order]
    true, ignored = build_masks(matches, detections)
    # What no rule counts changes nothing; VOC's rule is there only with the objects of all sizes.
    everything = _ALL_COCO if build_masks is not _build_masks else _ALL_COCO | _VOC_BIT
    is_counted = (true != 0) | (ignored != everything)
    detections, true, ignored = detections[is_counted], true[is_counted], ignored[is_counted]
    images = resampler.image[detections]
    ends = np.searchsorted(matches.class_id[detections], np.arange(classes + 1))
    object_classes, object_images = matches.class_id[objects], resampler.image[objects]
    for k in range(classes):
        own = slice(ends[k], ends[k + 1])
        yield images[own], true[own], ignored[own], object_images[object_classes == k]


def _build_masks(
    matches: Matches, detections: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The masks of COCO's rules and VOC's, `(D,)` each."""
    voc = matches.voc[detections]
    true, ignored = _build_size_masks("all", matches, detections)
    true |= (voc == 1).astype(np.uint16) << np.uint16(VOC_RULE)
    ignored |= (voc == -1).astype(np.uint16) << np.uint16(VOC_RULE)
    return true, ignored


def _build_size_masks(
    size: str, matches: Matches, detections: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The masks of COCO's rules for one of AREA_RANGES, `(D,)` each."""
    true = getattr(matches, f"true_{size}")[detections].astype(np.uint16)
    ignored = getattr(matches, f"ignored_{size}")[detections].astype(np.uint16)
    ignored[matches.rank[detections] >= COCO_RANKS] |= _ALL_COCO
    return true, ignored


def bootstrap_precision(
    resampler: Resampler,
    classes: Sequence[str],
    scores: Mapping[str, float | None] | None = None,
) -> PrecisionIntervals:
    """Estimate the intervals of COCO's and VOC's average precision.

    Args:
        resampler: the images and their weights.
        classes: the labels, in the order of `class_id`.
        scores: the means over all images by name, if the resampler's images are a sample of them; the
            intervals are centred on these.
    """
    figures = resample_precision(resampler, len(classes))
    coco = figures[:, :COCO_RULES].mean(axis=1)
    ap50, ap75, eleven, area = (figures[:, index] for index in (0, 5, COCO_RULES, COCO_RULES + 1))
    means = {
        name: average_defined(values)
        for name, values in (
            ("coco_ap", coco),
            ("coco_ap50", ap50),
            ("coco_ap75", ap75),
            ("voc07_map50", eleven),
            ("voc_map50", area),
        )
    }
    means |= resample_size_precision(resampler, len(classes))
    means |= resample_recalls(resampler, len(classes))
    centres = {**{name: float(values[0]) for name, values in means.items()}}
    centres.update({name: value for name, value in (scores or {}).items() if value is not None})
    estimates = {
        name: resampler.summarize(np.array([centres[name]]), values[None])[0]
        for name, values in means.items()
    }
    columns = [
        resampler.summarize(values[:, 0].copy(), values) for values in (coco, ap50, eleven, area)
    ]
    return PrecisionIntervals(
        **{name: estimates.pop(name) for name in ("coco_ap", "coco_ap50", "coco_ap75")},
        voc07_map50=estimates.pop("voc07_map50"),
        voc_map50=estimates.pop("voc_map50"),
        per_class=tuple(ClassIntervals(*row) for row in zip(classes, *columns, strict=True)),
        images=resampler.images,
        resamples=resampler.weights.shape[1] - 1,
        seed=resampler.seed,
        confidence=resampler.confidence,
        further=estimates,
    )


def average_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis without NaNs; NaN if there are only NaNs."""
    is_defined = ~np.isnan(values)
    count = is_defined.sum(axis=0)
    total = np.where(is_defined, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
