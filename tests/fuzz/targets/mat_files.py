"""Girshick's `.mat` files: wrong values and damaged bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.values import shorten
from tests.fuzz.target import Target
from tests.fuzz.targets.imported_proposals import (
    BOXES,
    IMAGES,
    REJECTED,
    Imported,
    count_skipped,
    find_fault_in_import,
    read_import,
)

_SOURCE = "boxes.mat"
_ONE_BASED = [[y1 + 1, x1 + 1, y2, x2] for x1, y1, x2, y2 in BOXES]


def _make_cells(values: list[Any]) -> NDArray[Any]:
    cells = np.empty((1, len(values)), object)
    for index, value in enumerate(values):
        cells[0, index] = value
    return cells


_INVALID_BOXES: tuple[Any, ...] = (
    *(np.array(_ONE_BASED) * 1j, np.zeros((2, 5)), np.zeros((2, 2, 2)), np.array(["text"])),
    *(np.array([[1, 1, np.nan, 9]]), np.array([[9, 9, 1, 1]]), np.array([[1, 1, np.inf, 9]])),
    *(
        np.array([[1, 1, 9, 500]]),
        np.array([[0, 0, -5, -5]]),
        _make_cells([1, 2]),
        np.array([[1e30, 1, 1e31, 9]]),
    ),
    {"a": 1},
)
_INVALID_NAMES: tuple[Any, ...] = (
    *(np.zeros((0, 0)), np.array([["a", "b"]]), 5.5, np.array([]), _make_cells([]), {"a": 1}),
)


def _write(folder: Path, random: Random) -> str:
    names: list[Any] = list(IMAGES)
    boxes: list[Any] = [np.array(_ONE_BASED, random.choice((np.float64, np.int32, np.uint16)))] * 3
    content: dict[str, Any] = {}
    change, is_rejected = "valid", False
    kind = random.random()
    if kind < 0.25:
        boxes[1] = random.choice(_INVALID_BOXES)
        change, is_rejected = f"boxes of b = {shorten(boxes[1])}", True
    elif kind < 0.35:
        names[1] = random.choice(_INVALID_NAMES)
        change, is_rejected = f"the name of b = {shorten(names[1])}", True
    elif kind < 0.45:
        change, is_rejected = "another number of names or no cells", True
        content = random.choice(_OTHER_CONTENT)()
    content = content or {"images": _make_cells(names).T, "boxes": _make_cells(boxes)}
    buffer = io.BytesIO()
    savemat(buffer, content, do_compression=random.random() < 0.5)
    data = buffer.getvalue()
    if not is_rejected and random.random() < 0.9:
        data, change = mutate_bytes(data, random)
    (folder / _SOURCE).write_bytes(data)
    if is_rejected:
        (folder / REJECTED).touch()
    return change


_OTHER_CONTENT: tuple[Callable[[], dict[str, Any]], ...] = (
    lambda: {"boxes": np.zeros((3, 4))},
    lambda: {"images": _make_cells(["a"]), "boxes": _make_cells([np.zeros((0, 4))] * 2)},
    lambda: {"images": _make_cells(["a", "a", "b", "7"]), "boxes": _make_cells([_ONE_BASED] * 4)},
    lambda: {"x": 1},
)


def _read(folder: Path) -> Imported:
    return read_import(folder, _SOURCE)


TARGETS = (Target("mat", _write, _read, find_fault_in_import, count_skipped),)
