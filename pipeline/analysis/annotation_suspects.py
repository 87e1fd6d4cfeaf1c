"""Boxes that an annotation may have wrong, as the matches of an image show them; `suspicion` rates them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.match_outcomes import (
    find_counted,
    find_excused,
    find_missed,
    find_objects,
    find_true,
)
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.analysis.slice_rules import select_boxes

KINDS = ("missing", "label", "box", "spurious")
MISSING, LABEL, BOX, SPURIOUS = range(4)

NOTHING_BELOW = 0.3
"""The highest IoU of a detection with an object by which it shows that object and no other."""
_MISSING_BELOW = 0.5
_LABEL_FROM = 0.5
_BOX_FROM, _BOX_TO = 0.1, 0.65
_SUPPORTERS = 4
_MOST_OF_IMAGE = 20

SUSPECT = np.dtype(
    [
        ("kind", np.int8),
        ("row", np.int64),
        ("object_index", np.int32),
        ("class_id", np.int32),
        ("suggested_class_id", np.int32),
        ("box", np.float32, 4),
        ("suggested_box", np.float32, 4),
        ("score", np.float32),
        ("iou", np.float32),
        ("inside", np.float32),
        ("held", np.float32),
        ("is_explained", np.bool_),
        ("rival_class_id", np.int32),
        ("rival_score", np.float32),
        ("rival_iou", np.float32),
        ("supporter_class_id", np.int32, _SUPPORTERS),
        ("supporter_score", np.float32, _SUPPORTERS),
        ("supporter_fit", np.float32, _SUPPORTERS),
        ("promise", np.float32),
    ]
)
"""A suspect; -1 and NaN where there is no object, no detection or no rival.

`score` is of the detection that contradicts the annotation; `iou` is with the suspected object, or for
a missing one with the object that the detection overlaps most. `inside` is the share of the detection
inside that object, `held` the largest share of an object of its label inside the detection.
`is_explained`: of a spurious one, that a `loc` or `cls` detection explains the miss. The rival
is the detection that speaks for the annotation; supporters are those that overlap a spurious object,
with a fit of 1 from an IoU of `NOTHING_BELOW` and less below. `promise` orders the suspects of a kind
before scores can be rated.
"""


def find_suspects(matches: Matches) -> NDArray[np.void]:
    """Find the suspects, of `SUSPECT`, among the matches of whole images."""
    boxes = np.stack(select_boxes(matches), axis=1)
    return np.concatenate([_find_missing(matches, boxes), *_find_wrong_objects(matches, boxes)])


def find_detections_of_nothing(matches: Matches) -> NDArray[np.int64]:
    """Find the false detections that overlap every object by less than `NOTHING_BELOW`."""
    is_false = find_counted(matches) & ~find_true(matches)
    return np.flatnonzero(is_false & (np.nan_to_num(matches.nearest_iou) < NOTHING_BELOW))


def _find_missing(matches: Matches, boxes: NDArray[np.float64]) -> NDArray[np.void]:
    is_false = find_counted(matches) & ~find_true(matches)
    overlap = np.nan_to_num(matches.nearest_iou)
    rows = np.flatnonzero(is_false & (overlap < _MISSING_BELOW))
    rows = rows[_find_best_of_image(matches, rows)]
    rows = rows[_find_best_in_place(matches, rows)]
    suspects = _start_suspects(MISSING, matches, rows)
    suspects["suggested_class_id"] = matches.class_id[rows]
    suspects["box"] = suspects["suggested_box"] = _get_corners(matches, rows)
    suspects["score"], suspects["iou"] = matches.score[rows], overlap[rows]
    objects = np.flatnonzero(find_true(matches) | ~matches.is_detection)
    keys = _key(matches.row[objects], matches.object_index[objects])
    order = np.argsort(keys)
    wanted = _key(matches.row[rows], matches.nearest_index[rows])
    position = _look_up(keys[order], np.where(matches.nearest_index[rows] >= 0, wanted, -1))
    has_object = position >= 0
    nearest = objects[order[position[has_object]]]
    own = _get_corners(matches, rows[has_object]).astype(np.float64)
    inner = _intersect(own, boxes[nearest])
    suspects["inside"] = 0
    suspects["inside"][has_object] = inner / np.maximum(_measure_areas(own), 1e-9)
    suspects["held"] = _measure_held(matches, boxes, rows, objects)
    suspects["promise"] = matches.score[rows] * (1 - suspects["inside"])
    return suspects


def _measure_held(
    matches: Matches,
    boxes: NDArray[np.float64],
    rows: NDArray[np.int64],
    objects: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The largest share of an annotated object of its image and label inside each detection, `(N,)`."""
    images, classes = matches.row, matches.class_id.astype(np.int64)
    width = 1 + int(classes.max(initial=0))
    keys = images[objects] * width + classes[objects]
    order = np.argsort(keys, kind="stable")
    wanted = images[rows] * width + classes[rows]
    starts, ends = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    counts = ends - starts
    suspect = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(suspect)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = boxes[objects[order[np.repeat(starts, counts) + within]]]
    inner = _intersect(_get_corners(matches, rows[suspect]).astype(np.float64), chosen)
    held = np.zeros(len(rows))
    np.maximum.at(held, suspect, inner / np.maximum(_measure_areas(chosen), 1e-9))
    return held


def _find_best_of_image(matches: Matches, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions of the best scored detections of each image, in their order."""
    order = np.lexsort((-matches.score[rows], matches.row[rows]))
    image = matches.row[rows[order]]
    place = np.arange(len(order)) - np.searchsorted(image, image)
    return np.sort(order[place < _MOST_OF_IMAGE])


def _find_best_in_place(matches: Matches, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some detections no better one of them, of any label, overlaps by half."""
    order = np.lexsort((-matches.score[rows], matches.row[rows]))
    ranked = rows[order]
    image, corners = matches.row[ranked], _get_corners(matches, ranked).astype(np.float64)
    areas = _measure_areas(corners)
    is_best = np.ones(len(ranked), np.bool_)
    first = np.arange(len(ranked))
    for distance in range(1, len(ranked)):
        first = first[first + distance < len(ranked)]
        first = first[image[first] == image[first + distance]]
        if not len(first):
            break
        second = first + distance
        inner = _intersect(corners[first], corners[second])
        is_best[second[inner >= 0.5 * (areas[first] + areas[second] - inner)]] = False
    kept = np.empty(len(rows), np.bool_)
    kept[order] = is_best
    return kept


def _find_wrong_objects(matches: Matches, boxes: NDArray[np.float64]) -> list[NDArray[np.void]]:
    """The objects of which label, box or existence is suspected."""
    objects = np.flatnonzero(find_objects(matches))
    objects = objects[np.argsort(_key(matches.row[objects], matches.object_index[objects]))]
    keys = _key(matches.row[objects], matches.object_index[objects])
    is_detection = matches.is_annotated & matches.is_detection & ~find_excused(matches)
    own = np.flatnonzero(is_detection & (matches.object_index >= 0) & ~np.isnan(matches.iou))
    of_own = _look_up(keys, _key(matches.row[own], matches.object_index[own]))
    near = np.flatnonzero(is_detection & (matches.nearest_index >= 0))
    of_near = _look_up(keys, _key(matches.row[near], matches.nearest_index[near]))
    count, score = len(objects), matches.score
    own_iou, near_iou = matches.iou[own], matches.nearest_iou[near]
    is_other = matches.class_id[near] != matches.nearest_class_id[near]
    fitting = _choose_best(own, of_own, own_iou >= _LABEL_FROM, score, count)
    probable = _choose_best(own, of_own, own_iou >= _BOX_FROM, score, count)
    closest = _choose_best(own, of_own, own_iou > 0, matches.iou, count)
    other = _choose_best(near, of_near, is_other & (near_iou >= _LABEL_FROM), score, count)
    fit = np.where(probable >= 0, matches.iou[probable], np.nan)

    labels = _describe_objects(LABEL, matches, boxes, objects, other >= 0)
    _fill_detection(labels, matches, other[other >= 0], fitting[other >= 0])
    labels["iou"] = matches.nearest_iou[other[other >= 0]]
    labels["promise"] = labels["score"] * (1 - np.nan_to_num(labels["rival_score"]))

    misplaced = _describe_objects(BOX, matches, boxes, objects, fit < _BOX_TO)
    _fill_detection(misplaced, matches, probable[fit < _BOX_TO], closest[fit < _BOX_TO])
    misplaced["iou"] = fit[fit < _BOX_TO]
    misplaced["promise"] = misplaced["score"] * (1 - misplaced["iou"])

    is_missed = find_missed(matches)[objects]
    spurious = _describe_objects(SPURIOUS, matches, boxes, objects, is_missed)
    spurious["is_explained"] = matches.error[objects[is_missed]] != ERRORS.index("miss")
    _fill_supporters(spurious, matches)
    supports = spurious["supporter_score"] * spurious["supporter_fit"]
    spurious["promise"] = np.prod(1 - np.clip(supports, 0, 1), axis=1)
    return [labels, misplaced, spurious]


def _describe_objects(
    kind: int,
    matches: Matches,
    boxes: NDArray[np.float64],
    objects: NDArray[np.int64],
    is_chosen: NDArray[np.bool_],
) -> NDArray[np.void]:
    rows = objects[is_chosen]
    suspects = _start_suspects(kind, matches, rows)
    suspects["object_index"], suspects["box"] = matches.object_index[rows], boxes[rows]
    return suspects


def _fill_supporters(suspects: NDArray[np.void], matches: Matches) -> None:
    """Note the detections, of any label, that overlap objects nothing detects; the strongest ones."""
    detections = np.flatnonzero(matches.is_annotated & matches.is_detection)
    starts = np.searchsorted(matches.row[detections], suspects["row"], side="left")
    counts = np.searchsorted(matches.row[detections], suspects["row"], side="right") - starts
    suspect = np.repeat(np.arange(len(suspects)), counts)
    within = np.arange(len(suspect)) - np.repeat(np.cumsum(counts) - counts, counts)
    detection = detections[np.repeat(starts, counts) + within]
    own = _get_corners(matches, detection).astype(np.float64)
    objects = suspects["box"][suspect].astype(np.float64)
    inner = _intersect(own, objects)
    iou = inner / np.maximum(_measure_areas(own) + _measure_areas(objects) - inner, 1e-9)
    fit = np.minimum(iou / NOTHING_BELOW, 1)
    overlapping = np.flatnonzero(fit > 0)
    strength = matches.score[detection[overlapping]] * fit[overlapping]
    order = overlapping[np.lexsort((-strength, suspect[overlapping]))]
    firsts = np.searchsorted(suspect[order], np.arange(len(suspects)))
    place = np.arange(len(order)) - firsts[suspect[order]]
    order, place = order[place < _SUPPORTERS], place[place < _SUPPORTERS]
    cells = suspect[order], place
    suspects["supporter_class_id"][cells] = matches.class_id[detection[order]]
    suspects["supporter_score"][cells] = matches.score[detection[order]]
    suspects["supporter_fit"][cells] = fit[order]


def _start_suspects(kind: int, matches: Matches, rows: NDArray[np.int64]) -> NDArray[np.void]:
    suspects = np.zeros(len(rows), SUSPECT)
    names = ("object_index", "suggested_class_id", "rival_class_id", "supporter_class_id")
    for name in names:
        suspects[name] = -1
    for name in ("box", "suggested_box", "score", "iou", "inside", "rival_score", "rival_iou"):
        suspects[name] = np.nan
    suspects["kind"], suspects["row"] = kind, matches.row[rows]
    suspects["class_id"] = matches.class_id[rows]
    return suspects


def _fill_detection(
    suspects: NDArray[np.void],
    matches: Matches,
    detection: NDArray[np.int64],
    rival: NDArray[np.int64],
) -> None:
    """Note the detection that contradicts each suspect, and the one that speaks for it, or -1."""
    suspects["suggested_class_id"] = matches.class_id[detection]
    suspects["suggested_box"] = _get_corners(matches, detection)
    suspects["score"] = matches.score[detection]
    has_rival = rival >= 0
    suspects["rival_class_id"][has_rival] = matches.class_id[rival[has_rival]]
    suspects["rival_score"][has_rival] = matches.score[rival[has_rival]]
    suspects["rival_iou"][has_rival] = matches.iou[rival[has_rival]]


def _choose_best(
    rows: NDArray[np.int64],
    of_object: NDArray[np.int64],
    is_allowed: NDArray[np.bool_],
    value: NDArray[np.float32],
    objects: int,
) -> NDArray[np.int64]:
    """The allowed detection of each object with the highest value, as a row of the matches, or -1."""
    allowed = np.flatnonzero(is_allowed & (of_object >= 0))
    order = allowed[np.lexsort((-value[rows[allowed]], of_object[allowed]))]
    best = np.full(objects, -1)
    unique, firsts = np.unique(of_object[order], return_index=True)
    best[unique] = rows[order[firsts]]
    return best


def _key(row: NDArray[np.int64], index: NDArray[np.int32]) -> NDArray[np.int64]:
    return row << 24 | index


def _look_up(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in `keys`, which rise, of those wanted; -1 for those that are not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    positions = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[positions] == wanted, positions, -1)


def _get_corners(matches: Matches, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.stack([getattr(matches, name)[rows] for name in ("x1", "y1", "x2", "y2")], axis=1)


def _measure_areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _intersect(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that each box shares with the box of the same row."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared: NDArray[np.float64] = np.clip(sides, 0, None).prod(axis=1)
    return shared
