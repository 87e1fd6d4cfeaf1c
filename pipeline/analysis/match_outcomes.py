"""What the rows of matches are by COCO's rule at IoU 0.5 for objects of all areas: true, counted, objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.matching import KINDS, Matches
from pipeline.analysis.matching_kernel import ROW
from pipeline.analysis.ranking import COCO_RANKS

Mask = NDArray[np.bool_]

_MISSED = KINDS.index("missed")


def has_bit(mask: NDArray[Any], bit: int) -> Mask:
    """Which rows have a bit set, `(R,)`."""
    return (mask >> bit & 1).astype(np.bool_)


def find_true(matches: Matches) -> Mask:
    """Which rows are true detections, `(R,)`."""
    return matches.is_annotated & matches.is_detection & has_bit(matches.true_all, 0)


def find_counted(matches: Matches) -> Mask:
    """Which rows are detections that count as true or false, `(R,)`."""
    is_ranked: Mask = matches.is_detection & (matches.rank < COCO_RANKS)
    return matches.is_annotated & is_ranked & ~has_bit(matches.ignored_all, 0)


def find_excused(matches: Matches) -> Mask:
    """Which rows are detections that their image's annotation cannot judge, since it is federated, `(R,)`."""
    is_ignored = matches.is_annotated & matches.is_detection & has_bit(matches.ignored_all, 0)
    return is_ignored & ~matches.object_difficult & ~matches.object_crowd


def find_objects(matches: Matches) -> Mask:
    """Which rows stand for an object that counts, each object once, `(R,)`."""
    return find_true(matches) | find_missed(matches)


def find_missed(matches: Matches) -> Mask:
    """Which rows are objects that no detection finds, `(R,)`."""
    is_missed: Mask = matches.kind == _MISSED
    return is_missed


def concatenate_matches(pieces: Sequence[Matches]) -> Matches:
    """The rows of all pieces, in their order."""
    dtypes = {"row": np.int64, "is_annotated": np.bool_, "covered50": np.int8, "covered70": np.int8}
    empty = {
        field.name: np.empty(0, dtypes.get(field.name) or ROW[field.name])
        for field in fields(Matches)
    }
    return Matches(
        **{
            name: np.concatenate([values, *(getattr(piece, name) for piece in pieces)])
            for name, values in empty.items()
        }
    )
