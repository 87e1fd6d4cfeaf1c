"""TIDE: what each type of error costs in AP50 (Bolya et al., TIDE, ECCV 2020).

Every false detection has one type, tested in this order, with foreground IoU 0.5 and background IoU 0.1:

- `loc`: it overlaps an object of its label by 0.1 to 0.5.
- `cls`: it overlaps an object of another label by at least 0.5.
- `dupe`: it overlaps an object of its label that a better detection has.
- `bkg`: it overlaps every object by at most 0.1.
- `both`: all others, of a wrong label and badly placed.

`miss` is a missed object that no `loc` or `cls` detection would find if it were corrected.

dAP of a type is the gain in AP50 if an oracle corrects its errors: of the `loc` and `cls` detections of one
object that nothing detects, the best scored one becomes true, for `cls` under the object's label; all other
false detections of the type vanish; missed objects need not be found. Errors are corrected one type at a
time, so the gains do not add up to 1 - AP50. `fp` and `fn` are TIDE's special errors: all false detections
vanish, or all missed objects need not be found.

AP50 is COCO's, with the mean over classes that have objects. As in tidecv, a gain is never negative, and a
class without objects left has an AP of 0. Other than in tidecv, at most 100 detections per image *and
class* count, ignored detections are no errors, and scores are compared with 13 bits of precision
(`score_levels.FINE`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.match_outcomes import find_counted, find_missed, find_objects, find_true
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.analysis.score_levels import FINE, GroupCounts, LevelCounts, compute_average_precision

CLS, LOC, BOTH, DUPE, BKG, MISS = (
    ERRORS.index(n) for n in ("cls", "loc", "both", "dupe", "bkg", "miss")
)
_FALSE_TYPES = (CLS, LOC, BOTH, DUPE, BKG)

# The flags of score levels: true; false ones by type; those of other types; corrected ones.
_TRUE, _FALSE, _OTHER, _CORRECTED_CLS, _CORRECTED_LOC = 0, slice(1, 6), 6, 7, 8
_COLUMNS = 9
_FLAG_OF_ERROR = np.full(len(ERRORS) + 1, 1 << _OTHER, np.int64)
"""The flag of a false detection by its `error`; the last is that of -1."""
_FLAG_OF_ERROR[list(_FALSE_TYPES)] = 1 << np.arange(_FALSE.start, _FALSE.stop)


@dataclass(frozen=True)
class ErrorGains:
    """The gain in AP50 by type of error, 0 to 1; None without objects."""

    cls: float | None
    loc: float | None
    both: float | None
    dupe: float | None
    bkg: float | None
    miss: float | None
    fp: float | None
    """If all false detections vanish."""
    fn: float | None
    """If all missed objects need not be found."""


@dataclass(frozen=True)
class ErrorCounts:
    """The number of errors by type: false detections, and for `miss` objects."""

    cls: int
    loc: int
    both: int
    dupe: int
    bkg: int
    miss: int


@dataclass(frozen=True)
class ClassErrors:
    """The errors of one class: of detections with its label, and its missed objects."""

    label: str
    objects: int
    ap50: float | None
    """COCO's AP at IoU 0.5; None without objects."""
    dap: ErrorGains
    counts: ErrorCounts


@dataclass(frozen=True)
class TideErrors:
    """What each type of error costs."""

    ap50: float | None
    """The mean over classes that have objects."""
    dap: ErrorGains
    """The gain of that mean."""
    counts: ErrorCounts
    per_class: tuple[ClassErrors, ...]
    intervals: Mapping[str, tuple[float, float]] | None = None
    """The 2.5th and 97.5th percentile of each gain of `dap` over resamples of the images, by its name."""


class TideCounts:
    """Accepts matches in any order and grouping of whole images.

    Args:
        classes: the labels, in the order of `class_id`.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._levels = LevelCounts(_COLUMNS, FINE)
        self._objects = np.zeros((3, len(classes)), np.int64)  # all, missed, `miss`

    def update(self, matches: Matches) -> None:
        """Add the matches of some images."""
        is_counted, is_true = find_counted(matches), find_true(matches)
        is_false = is_counted & ~is_true
        flags = np.where(is_true, 1 << _TRUE, _FLAG_OF_ERROR[matches.error])
        detections, labels = find_corrected(matches, is_false)
        is_loc = matches.error[detections] == LOC
        flags[detections[is_loc]] |= 1 << _CORRECTED_LOC
        self._levels.update(
            matches.class_id[is_counted], matches.score[is_counted], flags[is_counted]
        )
        moved = np.full(int((~is_loc).sum()), 1 << _CORRECTED_CLS)
        self._levels.update(labels[~is_loc], matches.score[detections[~is_loc]], moved)
        is_missed = find_missed(matches)
        for index, rows in enumerate(
            (find_objects(matches), is_missed, is_missed & (matches.error == MISS))
        ):
            self._objects[index] += np.bincount(matches.class_id[rows], minlength=len(self.classes))

    def merge(self, other: TideCounts) -> None:
        """Add the counts of other images."""
        self._levels.merge(other._levels)
        self._objects += other._objects

    def compute(self) -> TideErrors:
        """Compute AP50 and the gains."""
        curves = [self._levels.cumulate(index) for index in range(len(self.classes))]
        aps = np.array(
            [
                _compute_oracle_aps(curve, *objects)
                for curve, objects in zip(curves, self._objects.T.tolist(), strict=True)
            ]
        ).reshape(-1, 9)
        counts = [
            ErrorCounts(
                **{ERRORS[kind]: _count_type(curve, kind) for kind in _FALSE_TYPES},
                miss=int(missed),
            )
            for curve, missed in zip(curves, self._objects[2], strict=True)
        ]
        is_defined = self._objects[0] > 0
        mean = aps[is_defined].mean(axis=0) if is_defined.any() else np.full(9, np.nan)
        total = ErrorCounts(
            *(sum(getattr(row, field.name) for row in counts) for field in fields(ErrorCounts))
        )
        return TideErrors(
            _to_number(mean[0]),
            _measure_gains(mean),
            total,
            tuple(
                ClassErrors(label, int(n), _to_number(ap[0]), _measure_gains(ap), row)
                for label, n, ap, row in zip(
                    self.classes, self._objects[0], aps, counts, strict=True
                )
            ),
        )


def find_corrected(
    matches: Matches, is_false: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Find the `loc` and `cls` detections that become true: the best one of each object without detection.

    Returns:
        Positions in `matches` `(N,)` and the classes of their objects `(N,)`.
    """
    is_wrong = is_false & ((matches.error == LOC) | (matches.error == CLS))
    is_wrong &= matches.error_index >= 0
    candidates = np.flatnonzero(is_wrong)
    missed = np.flatnonzero(find_missed(matches))
    if not len(candidates) or not len(missed):
        return np.empty(0, np.int64), np.empty(0, np.int32)
    width = 1 + int(matches.object_index[missed].max(initial=0))
    keys = matches.row[missed] * width + matches.object_index[missed]
    order = np.argsort(keys)
    is_possible = matches.error_index[candidates] < width
    candidates = candidates[is_possible]
    wanted = matches.row[candidates] * width + matches.error_index[candidates]
    positions = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    is_missed = keys[order][positions] == wanted
    candidates, wanted, positions = candidates[is_missed], wanted[is_missed], positions[is_missed]
    best_first = np.lexsort((-matches.score[candidates], wanted))
    _, firsts = np.unique(wanted[best_first], return_index=True)
    chosen = best_first[firsts]
    return candidates[chosen], matches.class_id[missed[order[positions[chosen]]]]


def _compute_oracle_aps(
    curve: GroupCounts, objects: int, missed: int, unexplained: int
) -> list[float]:
    """AP50 as it is, then with each type corrected, in the order of `ErrorGains`; NaN without objects."""
    true, other = curve.counts[:, _TRUE], curve.counts[:, _OTHER]
    by_type = curve.counts[:, _FALSE]
    false = by_type.sum(axis=1) + other
    if objects == 0:
        return [np.nan] * 9
    aps = [compute_average_precision(true, false, objects)]
    for column, kind in enumerate(_FALSE_TYPES):
        added = {CLS: _CORRECTED_CLS, LOC: _CORRECTED_LOC}.get(kind)
        corrected = true if added is None else true + curve.counts[:, added]
        aps.append(compute_average_precision(corrected, false - by_type[:, column], objects))
    aps.append(compute_average_precision(true, false, objects - unexplained))
    aps.append(compute_average_precision(true, np.zeros_like(false), objects))
    aps.append(compute_average_precision(true, false, objects - missed))
    return [0.0 if np.isnan(ap) else ap for ap in aps]


def _count_type(curve: GroupCounts, kind: int) -> int:
    column = _FALSE.start + _FALSE_TYPES.index(kind)
    return int(curve.counts[-1, column]) if len(curve.counts) else 0


def _measure_gains(aps: NDArray[np.float64]) -> ErrorGains:
    return ErrorGains(*(_to_number(np.maximum(ap - aps[0], 0.0)) for ap in aps[1:]))


def _to_number(value: float | np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def build_tide_table(errors: TideErrors) -> pa.Table:
    """One row per class and type of error; `label` is null for the mean and the sum over classes.

    The mean has intervals, `low` and `high`.
    """
    rows = [
        {
            "label": label,
            "error": field.name,
            "dap": getattr(dap, field.name),
            "count": getattr(counts, field.name, None),
            "ap50": ap50,
            **_find_interval(errors, label, field.name),
        }
        for label, ap50, dap, counts in [
            (None, errors.ap50, errors.dap, errors.counts),
            *((row.label, row.ap50, row.dap, row.counts) for row in errors.per_class),
        ]
        for field in fields(ErrorGains)
    ]
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("label", pa.string()),
                ("error", pa.string()),
                ("dap", pa.float64()),
                ("count", pa.int64()),
                ("ap50", pa.float64()),
                ("low", pa.float64()),
                ("high", pa.float64()),
            ]
        ),
    )


def _find_interval(errors: TideErrors, label: str | None, name: str) -> dict[str, float]:
    if label is not None or errors.intervals is None or name not in errors.intervals:
        return {}
    low, high = errors.intervals[name]
    return {"low": low, "high": high}
