"""The kernel that matches the detections of images with their objects, by the rules of COCO, VOC and TIDE.

One pass over an image's detections, by class and falling score, computes each overlap once. All thresholds
and area ranges are matched together, because few detections overlap an object of their class at all: 485,000
detections with 37,000 objects take 0.2 s on one core.

Boxes are float64, as in pycocotools and the VOC kit, and overlaps are computed in their order of operations,
so that a comparison with a threshold has the same outcome.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.ranking import COCO_RANKS, IOU_THRESHOLDS
from pipeline.kernel_cache import njit
from pipeline.schema import AREA_RANGES

DETECTION, MISSED, IGNORED = range(3)
CLS, LOC, BOTH, DUPE, BKG, MISS = range(6)
NONE = -1
JUDGED, EXCUSED, LEFT_OUT = range(3)
"""How a detection counts: true or false; true, or neither; neither, and it is matched with nothing."""

FOREGROUND, BACKGROUND = 0.5, 0.1
"""TIDE's thresholds: IoUs of a detection that is true, and of one that shows nothing."""

RANGES, THRESHOLDS = len(AREA_RANGES), len(IOU_THRESHOLDS)
ALL_BITS = (1 << THRESHOLDS) - 1

ROW = np.dtype(
    [
        ("image", np.int32),
        ("detection", np.int32),
        ("kind", np.int8),
        ("class_id", np.int32),
        ("score", np.float32),
        ("x1", np.float32),
        ("y1", np.float32),
        ("x2", np.float32),
        ("y2", np.float32),
        ("rank", np.int32),
        ("object_index", np.int32),
        ("object_x1", np.float32),
        ("object_y1", np.float32),
        ("object_x2", np.float32),
        ("object_y2", np.float32),
        ("iou", np.float32),
        ("object_difficult", np.bool_),
        ("object_crowd", np.bool_),
        ("nearest_index", np.int32),
        ("nearest_class_id", np.int32),
        ("nearest_iou", np.float32),
        ("true_all", np.int16),
        ("true_small", np.int16),
        ("true_medium", np.int16),
        ("true_large", np.int16),
        ("ignored_all", np.int16),
        ("ignored_small", np.int16),
        ("ignored_medium", np.int16),
        ("ignored_large", np.int16),
        ("voc", np.int8),
        ("error", np.int8),
        ("error_index", np.int32),
    ],
    align=True,
)
"""One match as the kernel writes it; `detection` is its position in the input."""

EMPTY_ROW = np.zeros((), ROW)
"""A row of which nothing is known yet; the kernel writes into copies of it."""
for _name in ROW.names or ():
    if ROW[_name].kind == "f":
        EMPTY_ROW[_name] = np.nan
    elif ROW[_name] == np.int32 or _name == "error":
        EMPTY_ROW[_name] = NONE

OBJECT = np.dtype(
    [
        ("x1", np.float64),
        ("y1", np.float64),
        ("x2", np.float64),
        ("y2", np.float64),
        ("class_id", np.int32),
        ("difficult", np.bool_),
        ("crowd", np.bool_),
        ("is_found", np.bool_),
        ("is_explained", np.bool_),
        ("is_voc_found", np.bool_),
        ("outside", np.uint8),
    ],
    align=True,
)
"""An object and what the kernel notes about it; bit a of `outside` is set if range a ignores the object."""


@njit(cache=True, nogil=True, error_model="numpy")
def match_rows(
    order: NDArray[np.int64],
    class_ids: NDArray[np.int64],
    scores: NDArray[np.float32],
    boxes: NDArray[np.float64],
    excuses: NDArray[np.uint8],
    ends: NDArray[np.int64],
    objects: NDArray[np.void],
    object_ends: NDArray[np.int64],
    is_annotated: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
    limits: NDArray[np.float64],
    voc_threshold: float,
    rows: NDArray[np.void],
) -> int:
    """Write the rows of P images, and return their number.

    Args:
        order: int64 `(D,)`, the detections by image, class and falling score.
        class_ids: int64 `(D,)`.
        scores: float32 `(D,)`.
        boxes: float64 `(D, 4)`.
        excuses: uint8 `(D,)`, `JUDGED`, `EXCUSED` or `LEFT_OUT`.
        ends: int64 `(P,)`, the end of each image's detections in `order`.
        objects: of `OBJECT` `(G,)`, by image.
        object_ends: int64 `(P,)`, the end of each image's objects.
        is_annotated: bool `(P,)`.
        thresholds: float64 `(10,)`, COCO's.
        limits: float64 `(4, 2)`, the smallest and the largest area of each range.
        voc_threshold: the lowest IoU of a detection that is true by VOC's rule.
        rows: copies of `EMPTY_ROW` `(D + G,)`.
    """
    most = 0
    for image in range(len(object_ends)):
        most = max(most, object_ends[image] - (object_ends[image - 1] if image else 0))
    taken, masks = np.empty((most, RANGES), np.int16), np.empty((2, RANGES), np.int16)
    scratch = (np.empty(most), np.empty(most, np.int64), taken, masks)
    rules = (thresholds, limits, voc_threshold)
    count = 0
    for image in range(len(ends)):
        first = object_ends[image - 1] if image else 0
        own = objects[first : object_ends[image]]
        taken[: len(own)] = 0
        rank, previous = 0, -1
        for index in order[ends[image - 1] if image else 0 : ends[image]]:
            rank = rank + 1 if class_ids[index] == previous else 0
            previous = class_ids[index]
            row = rows[count]
            row.image, row.kind, row.class_id = image, DETECTION, class_ids[index]
            row.detection, row.score, row.rank = index, scores[index], rank
            box = boxes[index]
            row.x1, row.y1, row.x2, row.y2 = box[0], box[1], box[2], box[3]
            if is_annotated[image]:
                _match_detection(row, box, excuses[index], own, scratch, rules)
            count += 1
        for number in range(len(own)):
            count += _add_object(rows[count], image, own[number], number)
    return count


@njit
def _fill_object(row, object_, number):  # type: ignore[no-untyped-def]
    row.object_index = number
    row.object_x1, row.object_y1 = object_.x1, object_.y1
    row.object_x2, row.object_y2 = object_.x2, object_.y2
    row.object_difficult, row.object_crowd = object_.difficult, object_.crowd


@njit
def _add_object(row, image, object_, number):  # type: ignore[no-untyped-def]
    # Writes the row of an object that no detection stands for, and returns the number of rows.
    if object_.is_found:
        return 0
    is_ignored = object_.difficult or object_.crowd
    row.image, row.kind = image, IGNORED if is_ignored else MISSED
    row.class_id = object_.class_id
    _fill_object(row, object_, number)
    if not is_ignored and not object_.is_explained:
        row.error = MISS
    return 1


@njit
def _match_detection(row, box, excuse, objects, scratch, rules):  # type: ignore[no-untyped-def]
    overlaps = scratch[0]
    _measure_overlaps(box, objects, overlaps)
    same, aside, other, nearest, voc = _find_best(row.class_id, objects, overlaps)
    if nearest >= 0:
        row.nearest_index, row.nearest_iou = nearest, overlaps[nearest]
        row.nearest_class_id = objects[nearest].class_id
    matched = same if same >= 0 else aside
    if excuse == LEFT_OUT:
        row.voc = -1
        row.ignored_all = row.ignored_small = row.ignored_medium = row.ignored_large = ALL_BITS
    else:
        row.voc = _judge_by_voc(row.class_id, objects, overlaps, voc, rules[2])
        if excuse == EXCUSED and row.voc == 0:
            row.voc = -1
    if row.rank < COCO_RANKS and excuse != LEFT_OUT:
        area = (box[2] - box[0]) * (box[3] - box[1])
        counterpart = _match_ranges(row, area, excuse == EXCUSED, objects, scratch, rules)
        if counterpart >= 0:
            matched = counterpart
        if row.true_all & 1:
            objects[counterpart].is_found = True
        elif not row.ignored_all & 1:
            _classify_error(row, objects, overlaps, same, other)
    if matched >= 0:
        _fill_object(row, objects[matched], matched)
        row.iou = overlaps[matched]


@njit
def _measure_overlaps(box, objects, overlaps):  # type: ignore[no-untyped-def]
    # IoU with each object; with a crowd, the share of the box's area inside it.
    own = (box[2] - box[0]) * (box[3] - box[1])
    for g in range(len(objects)):
        object_ = objects[g]
        width = min(box[2], object_.x2) - max(box[0], object_.x1)
        height = min(box[3], object_.y2) - max(box[1], object_.y1)
        overlaps[g] = 0.0
        if width > 0 and height > 0:
            inner = width * height
            other = (object_.x2 - object_.x1) * (object_.y2 - object_.y1)
            overlaps[g] = inner / (own if object_.crowd else own + other - inner)


@njit
def _find_best(class_id, objects, overlaps):  # type: ignore[no-untyped-def]
    # The objects with the largest overlap, the first of equals, -1 for none: of the class, of the class
    # but ignored, of other classes, of any class but no crowd, of the class but no crowd.
    same, aside, other, nearest, voc = NONE, NONE, NONE, NONE, NONE
    for g in range(len(objects)):
        overlap = overlaps[g]
        if overlap <= 0:
            continue
        is_same, is_crowd = objects[g].class_id == class_id, objects[g].crowd
        is_ignored = is_crowd or objects[g].difficult
        if not is_crowd and (nearest < 0 or overlap > overlaps[nearest]):
            nearest = g
        if is_same and not is_crowd and (voc < 0 or overlap > overlaps[voc]):
            voc = g
        if is_same and is_ignored and (aside < 0 or overlap > overlaps[aside]):
            aside = g
        if is_same and not is_ignored and (same < 0 or overlap > overlaps[same]):
            same = g
        if not is_same and not is_ignored and (other < 0 or overlap > overlaps[other]):
            other = g
    return same, aside, other, nearest, voc


@njit
def _judge_by_voc(class_id, objects, overlaps, best, threshold):  # type: ignore[no-untyped-def]
    # 1 true, 0 false, -1 ignored.
    if best >= 0 and overlaps[best] >= threshold:
        if objects[best].difficult:
            return -1
        if not objects[best].is_voc_found:
            objects[best].is_voc_found = True
            return 1
    for g in range(len(objects)):
        is_crowd = objects[g].crowd and objects[g].class_id == class_id
        if is_crowd and overlaps[g] >= threshold:
            return -1
    return 0


@njit
def _match_ranges(row, area, is_excused, objects, scratch, rules):  # type: ignore[no-untyped-def]
    # pycocotools' evaluateImg for one detection; returns the object matched at 0.5 in the range of all.
    (overlaps, candidates, taken, masks), (thresholds, limits, _) = scratch, rules
    count, highest = 0, 0.0
    for g in range(len(objects)):
        if overlaps[g] >= thresholds[0] and objects[g].class_id == row.class_id:
            candidates[count] = g
            count, highest = count + 1, max(highest, overlaps[g])
    first = NONE
    for a in range(RANGES):
        true = ignored = 0
        is_outside = is_excused or area < limits[a, 0] or area > limits[a, 1]
        for t in range(THRESHOLDS):
            threshold = min(thresholds[t], 1 - 1e-10)
            if highest < threshold:  # nothing matches at this threshold or a higher one
                ignored |= (ALL_BITS >> t << t) * is_outside
                break
            best = _find_free(candidates[:count], a, t, threshold, objects, overlaps, taken)
            if a == 0 and t == 0:
                first = best
            if best >= 0:
                taken[best, a] |= 1 << t
            if is_outside if best < 0 else objects[best].outside >> a & 1:
                ignored |= 1 << t
            elif best >= 0:
                true |= 1 << t
        masks[0, a], masks[1, a] = true, ignored
    row.true_all, row.ignored_all = masks[0, 0], masks[1, 0]
    row.true_small, row.ignored_small = masks[0, 1], masks[1, 1]
    row.true_medium, row.ignored_medium = masks[0, 2], masks[1, 2]
    row.true_large, row.ignored_large = masks[0, 3], masks[1, 3]
    return first


@njit
def _find_free(candidates, a, t, threshold, objects, overlaps, taken):  # type: ignore[no-untyped-def]
    # The object with the largest overlap that no better detection has, the last of equals, as in
    # pycocotools; ignored ones only if no other fits, and crowds however many detections they have.
    for is_ignored in range(2):
        best, lowest = NONE, threshold
        for g in candidates:
            if objects[g].outside >> a & 1 != is_ignored:
                continue
            if taken[g, a] >> t & 1 and not objects[g].crowd:
                continue
            if overlaps[g] >= lowest:
                best, lowest = g, overlaps[g]
        if best >= 0:
            return best
    return NONE


@njit
def _classify_error(row, objects, overlaps, same, other):  # type: ignore[no-untyped-def]
    # TIDE's type of a false detection, in the order in which its code asks.
    overlap = overlaps[same] if same >= 0 else 0.0
    if BACKGROUND <= overlap <= FOREGROUND:
        row.error, row.error_index = LOC, same
        objects[same].is_explained = True
    elif other >= 0 and overlaps[other] >= FOREGROUND:
        row.error, row.error_index = CLS, other
        objects[other].is_explained = True
    elif overlap > FOREGROUND:
        row.error, row.error_index = DUPE, same
    elif other < 0 or overlaps[other] <= BACKGROUND:
        row.error = BKG
    else:
        row.error = BOTH


@njit(cache=True, nogil=True, error_model="numpy")
def find_covered(
    objects: NDArray[np.float64], proposals: NDArray[np.float32], lowest: float, highest: float
) -> NDArray[np.bool_]:
    """For each object `(G, 4)` whether a proposal `(N, 4)` overlaps it by two IoUs, bool `(G, 2)`."""
    covered = np.zeros((len(objects), 2), np.bool_)
    for g in range(len(objects)):
        x1, y1, x2, y2 = objects[g, 0], objects[g, 1], objects[g, 2], objects[g, 3]
        own = (x2 - x1) * (y2 - y1)
        for n in range(len(proposals)):
            left, top = np.float64(proposals[n, 0]), np.float64(proposals[n, 1])
            right, bottom = np.float64(proposals[n, 2]), np.float64(proposals[n, 3])
            width, height = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
            if width <= 0 or height <= 0:
                continue
            inner = width * height
            iou = inner / (own + (right - left) * (bottom - top) - inner)
            if iou >= lowest:
                covered[g, 0] = True
            if iou >= highest:
                covered[g, 1] = True
                break
    return covered
