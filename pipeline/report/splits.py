"""The galleries of a report: detections, objects, outcomes, errors, sizes, scores, misses by their cause."""

from __future__ import annotations

import numpy as np

from pipeline.analysis.calibration import BINS, find_bins
from pipeline.analysis.matching import ERRORS
from pipeline.analysis.object_sizes import SIZES, classify_sizes
from pipeline.report.confusion_splits import build_confusion_splits
from pipeline.report.match_rows import MatchRows
from pipeline.report.plan import Categories, Category, GalleryPlan, Split
from pipeline.report.slice_splits import build_slice_splits


def list_splits(plan: GalleryPlan) -> tuple[Split, ...]:
    """The splits of a report."""
    if not plan.is_annotated:
        return (_DETECTIONS, _DETECTION_SIZES)
    splits = (
        _DETECTIONS,
        _DETECTION_SIZES,
        _OBJECTS,
        _OUTCOMES,
        _ERRORS,
        _SIZES,
        _SCORES,
        *build_confusion_splits(plan),
        *build_slice_splits(plan),
    )
    return (*splits, _COVERAGE) if plan.has_proposals else splits


def _assign_detections(rows: MatchRows, plan: GalleryPlan) -> Categories:  # noqa: ARG001
    return np.where(rows.matches.is_detection, 0, -1)


def _assign_detection_sizes(rows: MatchRows, plan: GalleryPlan) -> Categories:  # noqa: ARG001
    matches = rows.matches
    width = matches.x2.astype(np.float64) - matches.x1
    height = matches.y2.astype(np.float64) - matches.y1
    return np.where(matches.is_detection, classify_sizes(width * height), -1)


def _assign_objects(rows: MatchRows, plan: GalleryPlan) -> Categories:  # noqa: ARG001
    return np.where(rows.find_objects(), 0, -1)


def _assign_outcomes(rows: MatchRows, plan: GalleryPlan) -> Categories:
    outcomes = np.full(len(rows.score), -1)
    outcomes[rows.find_ignored(plan.min_score)] = 3
    outcomes[rows.find_missed(plan.min_score)] = 2
    outcomes[rows.find_false(plan.min_score)] = 1
    outcomes[rows.find_true(plan.min_score)] = 0
    return outcomes


def _assign_errors(rows: MatchRows, plan: GalleryPlan) -> Categories:  # noqa: ARG001
    is_error = rows.is_counted | ~rows.matches.is_detection
    return np.where(is_error, rows.matches.error.astype(np.int64), -1)


def _assign_sizes(rows: MatchRows, plan: GalleryPlan) -> Categories:
    size = classify_sizes(rows.object_area)
    is_missed = rows.find_missed(plan.min_score)
    return np.where(rows.find_objects(), 2 * size + is_missed, -1)


def _assign_coverage(rows: MatchRows, plan: GalleryPlan) -> Categories:
    covered = rows.matches.covered50.astype(np.int64)
    return np.where(rows.find_missed(plan.min_score) & (covered >= 0), 1 - covered, -1)


def _assign_scores(rows: MatchRows, plan: GalleryPlan) -> Categories:  # noqa: ARG001
    return np.where(rows.is_counted, find_bins(np.nan_to_num(rows.score)), -1)


_DETECTIONS = Split(
    "detections",
    (
        Category(
            "detections",
            "detections",
            "detections",
            "Detections of any score; confident ones are shown first.",
        ),
    ),
    _assign_detections,
    is_confident_first=True,
)
_DETECTION_SIZES = Split(
    "detection-sizes",
    tuple(
        Category(
            f"{size}-detections", f"{size} detections", "detections", "Detections of any score."
        )
        for size in SIZES
    ),
    _assign_detection_sizes,
    is_confident_first=True,
    is_by_class=False,
)
_OBJECTS = Split(
    "objects",
    (
        Category(
            "objects",
            "annotated objects",
            "objects",
            "Objects that count: neither difficult nor crowds.",
        ),
    ),
    _assign_objects,
)
_OUTCOMES = Split(
    "outcomes",
    (
        Category(
            "true",
            "true detections",
            "detections",
            "Detections that match an object of their class at IoU 0.5.",
            8,
        ),
        Category(
            "false",
            "false detections",
            "detections",
            "Detections that match no object of their class at IoU 0.5, or one that is taken.",
            8,
        ),
        Category(
            "missed",
            "missed objects",
            "objects",
            "Objects that no detection of this score finds.",
            8,
        ),
        Category(
            "ignored",
            "ignored detections",
            "detections",
            "Detections of difficult objects or inside crowds, and those beyond the first 100 of an image "
            "and class: they count neither as true nor as false.",
        ),
    ),
    _assign_outcomes,
)
_MEANINGS = {
    "cls": (
        "wrong class",
        "detections",
        "Detections that would match an object of another class at IoU 0.5.",
    ),
    "loc": (
        "badly placed",
        "detections",
        "Detections of the right class whose IoU with the object is between 0.1 and 0.5.",
    ),
    "both": (
        "class and place",
        "detections",
        "Detections of another class whose IoU with the object is between 0.1 and 0.5.",
    ),
    "dupe": (
        "duplicate",
        "detections",
        "Detections of an object that a better scored detection has matched.",
    ),
    "bkg": (
        "background",
        "detections",
        "Detections that overlap every object by less than IoU 0.1.",
    ),
    "miss": (
        "missed",
        "objects",
        "Objects that no detection finds, and that no badly placed or wrongly classified one explains.",
    ),
}
ERROR_TITLES = {error: title for error, (title, _, _) in _MEANINGS.items()}
"""Short names of TIDE's error types."""
_ERRORS = Split(
    "errors",
    tuple(
        Category(f"error-{error}", f"errors: {title}", unit, f"{meaning} Of any score.", 2)
        for error, (title, unit, meaning) in ((error, _MEANINGS[error]) for error in ERRORS)
    ),
    _assign_errors,
    is_confident_first=True,
)
_SIZES = Split(
    "sizes",
    tuple(
        Category(
            f"{size}-{outcome}",
            f"{size} objects, {outcome}",
            "objects",
            "Sizes are COCO's: small below 32² pixels of area, large from 96² on.",
        )
        for size in SIZES
        for outcome in ("detected", "missed")
    ),
    _assign_sizes,
)
_COVERAGE = Split(
    "coverage",
    (
        Category(
            "missed-by-head",
            "objects missed by the head",
            "objects",
            "Missed objects that a proposal covers at IoU 0.5: the classifier rejected or misplaced them.",
            2,
        ),
        Category(
            "missed-by-proposals",
            "objects missed by the proposals",
            "objects",
            "Missed objects that no proposal covers at IoU 0.5: no head could find them.",
            2,
        ),
    ),
    _assign_coverage,
)
_SCORES = Split(
    "scores",
    tuple(
        Category(
            f"score-{index}",
            f"detections with scores from {index / BINS:.1f} to {(index + 1) / BINS:.1f}",
            "detections",
            "True and false ones; ignored ones do not count.",
        )
        for index in range(BINS)
    ),
    _assign_scores,
    is_by_class=False,
)
