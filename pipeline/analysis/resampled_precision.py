"""Average precision of one class over many weightings of the images: the kernel of `intervals`.

An image with weight w counts like w copies of it: its detections are true or false w times, and its objects
must be found w times. Sixteen weightings go through the ranking together, one per lane of a vector: 485,000
detections of 5,000 images take about three seconds for 1,000 weightings and eleven rules on one core.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit

LANES = 16
COCO_RULES = 10
"""COCO's thresholds of IoU, bits 0 to 9 of the masks."""
VOC_RULE = 10
"""VOC's rule at IoU 0.5, bit 10."""
RULES = 11
FIGURES = RULES + 1
"""The figures of a class: COCO's AP at each threshold, then VOC's 11-point and area AP."""

_SLACK = 1e-9  # recall k / 100 is reached by k of 100 objects, whatever their quotient rounds to


@njit(cache=True, nogil=True, error_model="numpy")
def score_weightings(
    images: NDArray[np.int64],
    true: NDArray[np.uint16],
    ignored: NDArray[np.uint16],
    objects: NDArray[np.int64],
    weights: NDArray[np.float32],
    figures: NDArray[np.float64],
) -> None:
    """Compute the figures of one class under the weightings of sixteen lanes.

    Args:
        images: `(D,)` the image of each detection, best first.
        true: `(D,)` bit r is set if the detection is true by rule r.
        ignored: `(D,)` bit r is set if rule r does not count it.
        objects: `(G,)` the image of each object to find.
        weights: float32 `(P, LANES)`, contiguous.
        figures: float64 `(FIGURES, LANES)`, which is written: NaN in lanes without objects.
    """
    wanted = np.zeros(LANES, np.float64)
    for image in objects:
        for lane in range(LANES):
            wanted[lane] += weights[image, lane]
    count = 0
    for mask in true:
        if mask:
            count += 1
    hits = np.zeros((RULES, count, LANES), np.float32)
    precision = np.zeros((RULES, count, LANES), np.float32)
    steps = _rank(images, true, ignored, weights, hits, precision)
    area = np.empty(LANES, np.float64)
    for rule in range(RULES):
        # VOC's rule comes last, so that its area stays.
        parts = 10 if rule == VOC_RULE else 100
        _integrate(hits[rule], precision[rule], steps[rule], wanted, parts, area, figures[rule])
    figures[RULES] = area


@njit(error_model="numpy")
def _rank(images, true, ignored, weights, hits, precision):  # type: ignore[no-untyped-def]
    # True detections and precision at each true detection, by rule; returns their number by rule.
    seen = np.zeros(LANES, np.float32)
    skipped = np.zeros((RULES, LANES), np.float32)
    found = np.zeros((RULES, LANES), np.float32)
    steps = np.zeros(RULES, np.int64)
    for d in range(len(images)):
        own = weights[images[d]]
        for lane in range(LANES):
            seen[lane] += own[lane]
        if not (true[d] | ignored[d]):
            continue
        for rule in range(RULES):
            if ignored[d] >> rule & 1:
                for lane in range(LANES):
                    skipped[rule, lane] += own[lane]
            elif true[d] >> rule & 1:
                step = steps[rule]
                for lane in range(LANES):
                    found[rule, lane] += own[lane]
                    counted = max(seen[lane] - skipped[rule, lane], np.float32(1))
                    hits[rule, step, lane] = found[rule, lane]
                    precision[rule, step, lane] = found[rule, lane] / counted
                steps[rule] += 1
    return steps


@njit(error_model="numpy")
def _integrate(hits, precision, steps, wanted, parts, area, mean):  # type: ignore[no-untyped-def]
    # Writes the area under interpolated precision, and its mean at `parts` + 1 recalls.
    for lane in range(LANES):
        area[lane] = mean[lane] = 0.0 if wanted[lane] > 0 else np.nan
    highest = np.zeros(LANES, np.float32)
    for step in range(steps - 1, -1, -1):
        for lane in range(LANES):
            highest[lane] = max(highest[lane], precision[step, lane])
            now = hits[step, lane] / wanted[lane]
            before = hits[step - 1, lane] / wanted[lane] if step else 0.0
            area[lane] += (now - before) * highest[lane]
            reached = np.floor(now * parts + _SLACK) + (now > 0)
            reached_before = np.floor(before * parts + _SLACK) + (before > 0)
            mean[lane] += (reached - reached_before) * highest[lane] / (parts + 1)
