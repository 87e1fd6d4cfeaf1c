"""Likely errors of the annotation, ranked: what a detector is sure of and the annotation contradicts.

Four kinds, each with a suspicion from 0 to 1. The probability p of a detection is that of being true at its
class and score, as the run itself shows it (`score_reliability`), so that a class which the detector often
gets wrong raises fewer suspicions than one that it knows.

- `missing`: a false detection that overlaps every object by less than 0.5, and that no better one of them
  overlaps by half. Suspicion p (1 - the share of it inside the object that it overlaps most) (1 - half the
  largest share of an object of its label that is inside it), so that neither parts of objects nor groups of
  them rank high. Here p is the probability of being true rather than of nothing.
- `label`: an object that a detection of another label overlaps most, by at least 0.5. Suspicion p IoU (1 -
  q), with q the largest p of the detections of the object's own label on it.
- `box`: an object whose best scored detection of its label overlaps it by 0.1 to 0.65. Suspicion p min(1.3 -
  2 IoU, 1), less if a closer detection of the label is probable too, with p as for `missing`.
- `spurious`: an object that no detection finds. Suspicion Π (1 - p min(IoU / 0.3, 1)) over the four
  detections, of any label, that support it most; half of it if a `loc` or `cls` detection explains the miss.

An image's suspicion is that of at least one error, if its errors were independent: 1 - Π (1 - suspicion).
Difficult objects and crowds are never suspected, and neither are detections of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.annotation_suspects import (
    KINDS,
    SUSPECT,
    find_detections_of_nothing,
    find_suspects,
)
from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.match_outcomes import find_counted, find_true
from pipeline.analysis.matching import Matches
from pipeline.analysis.score_reliability import BINS, find_score_bins, fit_reliability
from pipeline.analysis.suspicion import rate_suspects

MAX_SUSPECTS = 20_000
"""The most suspects of each kind that are kept while parts are read."""
LISTED = 100
"""Suspects of each kind, and images, that the result lists; the table has all that were kept."""


@dataclass(frozen=True)
class AnnotationError:
    """One box that may be wrong, or missing."""

    kind: str
    """`missing`, `label`, `box` or `spurious`."""
    suspicion: float
    """0 to 1; the errors of a kind are ranked by it."""
    row: int
    """The image's row in the manifest."""
    image_id: str | None
    object_index: int | None
    """The suspected object's position in the manifest's `objects`; None for a missing one."""
    label: str
    """The object's label; of a missing object, that of the detection."""
    suggested_label: str | None
    """What the detector sees; None if it sees nothing."""
    box: tuple[float, float, float, float]
    """The object's box; of a missing object, that of the detection."""
    suggested_box: tuple[float, float, float, float] | None
    """The detection's box; None if there is none."""
    score: float | None
    """The detection's score."""
    iou: float | None
    """Of the detection with the object."""


@dataclass(frozen=True)
class SuspectedImage:
    """An image and its suspicion over all kinds."""

    row: int
    """In the manifest."""
    image_id: str | None
    suspicion: float
    errors: int
    """Suspects in the image."""


@dataclass(frozen=True)
class AnnotationErrors:
    """Likely errors of the annotation."""

    totals: dict[str, int]
    """Suspects by kind, whatever their suspicion."""
    errors: tuple[AnnotationError, ...]
    """The most suspected ones of each kind, by kind and falling suspicion."""
    images: tuple[SuspectedImage, ...]
    """The most suspected images."""


class AnnotationErrorCounts:
    """Accepts matches in any order and grouping of whole images.

    Args:
        classes: the labels, in the order of `class_id`.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._scores = np.zeros((len(classes), BINS, 3), np.int64)  # true, false, of nothing
        self._totals = np.zeros(len(KINDS), np.int64)
        self._pieces = [np.empty(0, SUSPECT)]
        self._lowest = np.full(len(KINDS), -np.inf)
        """The lowest promise of each kind that can still be among the best."""
        self._image_ids: dict[int, str] = {}
        self._ranked: tuple[NDArray[np.void], NDArray[np.float64]] | None = None

    def update(self, matches: Matches, facts: ImageFacts | None = None) -> None:
        """Add the matches of some images, and their ids if the result shall have them."""
        is_true = find_true(matches)
        is_false = find_counted(matches) & ~is_true
        nothing = find_detections_of_nothing(matches)
        for outcome, rows in enumerate(
            (np.flatnonzero(is_true), np.flatnonzero(is_false), nothing)
        ):
            cells = matches.class_id[rows] * BINS + find_score_bins(matches.score[rows])
            counts = np.bincount(cells, minlength=self._scores[:, :, 0].size)
            self._scores[:, :, outcome] += counts.reshape(-1, BINS)
        suspects = find_suspects(matches)
        self._totals += np.bincount(suspects["kind"], minlength=len(KINDS))
        suspects = self._keep(suspects)
        if facts is not None:
            rows = np.unique(suspects["row"])
            ids = facts.image_ids.take(pa.array(facts.find_positions(rows))).to_pylist()
            self._add_image_ids(dict(zip(rows.tolist(), ids, strict=True)))

    def merge(self, other: AnnotationErrorCounts) -> None:
        """Add the counts and suspects of other images."""
        self._scores += other._scores
        self._totals += other._totals
        for suspects in other._pieces:
            self._keep(suspects)
        self._add_image_ids(other._image_ids)

    def _add_image_ids(self, image_ids: Mapping[int, str]) -> None:
        """Add ids by row; those of images without suspects that were kept are dropped from time to time."""
        self._image_ids.update(image_ids)
        if len(self._image_ids) > 2 * MAX_SUSPECTS * len(KINDS):
            kept = {row for suspects in self._pieces for row in suspects["row"].tolist()}
            self._image_ids = {row: name for row, name in self._image_ids.items() if row in kept}

    def _keep(self, suspects: NDArray[np.void]) -> NDArray[np.void]:
        """Keep the best suspects of each kind by what can be said without all counts; returns them."""
        self._ranked = None
        suspects = suspects[suspects["promise"] >= self._lowest[suspects["kind"]]]
        self._pieces.append(suspects)
        if sum(map(len, self._pieces)) > 2 * MAX_SUSPECTS * len(KINDS):
            self._prune()
        return suspects

    def _prune(self) -> NDArray[np.void]:
        """Drop all but the best suspects of each kind, and return those."""
        suspects = np.concatenate(self._pieces)
        self._lowest = self._lowest.copy()  # an executor's arrays cannot be changed
        pieces = []
        for kind in range(len(KINDS)):
            own = suspects[suspects["kind"] == kind]
            if len(own) > MAX_SUSPECTS:
                lowest = np.partition(own["promise"], -MAX_SUSPECTS)[-MAX_SUSPECTS]
                own = own[own["promise"] >= lowest]
                own = own[np.lexsort((*_break_ties(own), -own["promise"]))[:MAX_SUSPECTS]]
                self._lowest[kind] = lowest
            pieces.append(own)
        best: NDArray[np.void] = np.concatenate(pieces)
        self._pieces = [best]
        return best

    def __getstate__(self) -> dict[str, Any]:
        self._prune()
        return self.__dict__

    def rank(self) -> tuple[NDArray[np.void], NDArray[np.float64]]:
        """Return the suspects `(N,)` of all kinds and their suspicions, by kind and falling suspicion."""
        if self._ranked is None:
            self._ranked = self._rank()
        return self._ranked

    def _rank(self) -> tuple[NDArray[np.void], NDArray[np.float64]]:
        suspects = self._prune()
        reliability = fit_reliability(self._scores[:, :, [0, 1]])
        reality = fit_reliability(self._scores[:, :, [0, 2]])
        suspicion = rate_suspects(suspects, reliability, reality)
        order = np.lexsort((*_break_ties(suspects), -suspicion, suspects["kind"]))
        return suspects[order], suspicion[order]

    def compute(self, listed: int = LISTED) -> AnnotationErrors:
        """Rank the suspects and list the best of each kind, and the most suspected images."""
        suspects, suspicion = self.rank()
        first = np.searchsorted(suspects["kind"], np.arange(len(KINDS)))
        place = np.arange(len(suspects)) - first[suspects["kind"]]
        top = np.flatnonzero(place < listed)
        return AnnotationErrors(
            {name: int(total) for name, total in zip(KINDS, self._totals, strict=True)},
            tuple(
                self._describe(suspect, float(value))
                for suspect, value in zip(suspects[top], suspicion[top], strict=True)
            ),
            self._rank_images(suspects["row"], suspicion)[:listed],
        )

    def _describe(self, suspect: np.void, suspicion: float) -> AnnotationError:
        has_detection, is_object = suspect["score"] >= -np.inf, suspect["object_index"] >= 0
        other = int(suspect["suggested_class_id"])
        return AnnotationError(
            kind=KINDS[suspect["kind"]],
            suspicion=suspicion,
            row=int(suspect["row"]),
            image_id=self._image_ids.get(int(suspect["row"])),
            object_index=int(suspect["object_index"]) if is_object else None,
            label=self.classes[suspect["class_id"]],
            suggested_label=self.classes[other] if other >= 0 else None,
            box=_to_box(suspect["box"]),
            suggested_box=_to_box(suspect["suggested_box"]) if has_detection else None,
            score=float(suspect["score"]) if has_detection else None,
            iou=None if np.isnan(suspect["iou"]) else float(suspect["iou"]),
        )

    def build_table(self) -> pa.Table:
        """One row per suspect that was kept, by kind and falling suspicion."""
        suspects, suspicion = self.rank()
        first = np.searchsorted(suspects["kind"], np.arange(len(KINDS)))
        labels = pa.array(list(self.classes), pa.string())
        columns = {
            "kind": pa.array(list(KINDS)).take(pa.array(np.ascontiguousarray(suspects["kind"]))),
            "rank": pa.array(np.arange(len(suspects)) - first[suspects["kind"]]),
            "suspicion": pa.array(suspicion),
            "image_id": self._list_image_ids(suspects["row"]),
            "row": pa.array(np.ascontiguousarray(suspects["row"])),
            "object_index": _mask(suspects["object_index"], suspects["object_index"] < 0),
            "label": labels.take(pa.array(np.ascontiguousarray(suspects["class_id"]))),
            "suggested_label": labels.take(
                _mask(suspects["suggested_class_id"], suspects["suggested_class_id"] < 0)
            ),
            "score": _mask(suspects["score"], np.isnan(suspects["score"])),
            "iou": _mask(suspects["iou"], np.isnan(suspects["iou"])),
        }
        for prefix, name in (("", "box"), ("suggested_", "suggested_box")):
            for column, corner in enumerate(("x1", "y1", "x2", "y2")):
                values = np.ascontiguousarray(suspects[name][:, column])
                columns[prefix + corner] = _mask(values, np.isnan(values))
        return pa.table(columns)

    def build_image_table(self) -> pa.Table:
        """One row per image with suspects that were kept, by falling suspicion."""
        suspects, suspicion = self.rank()
        rows = self._rank_images(suspects["row"], suspicion)
        return pa.table(
            {
                "image_id": pa.array([image.image_id for image in rows], pa.string()),
                "row": pa.array([image.row for image in rows], pa.int64()),
                "suspicion": pa.array([image.suspicion for image in rows], pa.float64()),
                "errors": pa.array([image.errors for image in rows], pa.int64()),
            }
        )

    def _list_image_ids(self, rows: NDArray[np.int64]) -> pa.Array:
        return pa.array([self._image_ids.get(row) for row in rows.tolist()], pa.string())

    def _rank_images(
        self, rows: NDArray[np.int64], suspicion: NDArray[np.float64]
    ) -> tuple[SuspectedImage, ...]:
        images, index = np.unique(rows, return_inverse=True)
        innocence = np.ones(len(images))
        np.multiply.at(innocence, index, 1 - suspicion)
        counts = np.bincount(index, minlength=len(images))
        return tuple(
            SuspectedImage(
                int(images[k]),
                self._image_ids.get(int(images[k])),
                float(1 - innocence[k]),
                int(counts[k]),
            )
            for k in np.lexsort((images, innocence))
        )


def _break_ties(suspects: NDArray[np.void]) -> tuple[NDArray[Any], ...]:
    """Keys, the first ones last, that no two suspects of a kind share."""
    corners = suspects["box"].T
    return *corners, suspects["class_id"], suspects["object_index"], suspects["row"]


def _to_box(corners: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in corners)
    return x1, y1, x2, y2


def _mask(values: NDArray[np.generic], is_null: NDArray[np.bool_]) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=np.ascontiguousarray(is_null))
