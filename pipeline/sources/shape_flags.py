"""Flags that labelling tools keep as attributes of a shape: `difficult` as in VOC, `is_crowd` as in COCO."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from pipeline.sources.scalars import read_flag
from pipeline.sources.tally import Repair

_DIFFICULT = frozenset({"difficult"})
_CROWD = frozenset({"crowd", "iscrowd", "is_crowd"})


class ShapeFlags(NamedTuple):
    """Whether an object counts, and whether it is a group."""

    difficult: bool = False
    crowd: bool = False


def read_shape_flags(
    attributes: Iterable[tuple[Any, Any]], where: str
) -> tuple[ShapeFlags, list[Repair]]:
    """The flags among a shape's attributes, which are pairs of name and value; others are not read.

    Raises:
        UnreadableDataset: a flag has a value that is neither true nor false.
    """
    states = {"difficult": False, "crowd": False}
    repairs = []
    for attribute, value in attributes:
        name = attribute.strip().lower() if isinstance(attribute, str) else ""
        field = "difficult" if name in _DIFFICULT else "crowd" if name in _CROWD else None
        if field is None:
            continue
        flag = read_flag(value, name, where)
        if flag is None:
            repairs.append(Repair("object", f"with {field} unspecified: taken as not set", where))
        states[field] = states[field] or bool(flag)
    return ShapeFlags(**states), repairs
