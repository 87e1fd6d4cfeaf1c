"""detectron2's pickles: wrong values, damaged bytes, and pickles made to harm."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

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

_SOURCE = "proposals.pkl"
Value = Callable[[], Any]

_VALID: dict[str, list[Value]] = {
    "ids": [
        lambda: ["a", "b", 7],
        lambda: ["a", "b", np.int64(7)],
        lambda: ["a", "b", "7", "other"],
    ],
    "boxes": [
        lambda: [np.array(BOXES, np.float64)] * 3,
        lambda: [BOXES] * 3,
        lambda: [np.array(BOXES, np.int64)] * 3,
        lambda: [np.array(BOXES, np.float16), *[np.array(BOXES, np.float32)] * 2],
        lambda: [np.empty((0, 4)), *[BOXES] * 2],
    ],
    "objectness_logits": [lambda: [[0.9, 0.1]] * 3, lambda: [np.array([1, 0])] * 3],
    "bbox_mode": [lambda: 0, lambda: np.int64(0)],
}
_INVALID: dict[str, list[Value]] = {
    "ids": [
        *(lambda: 5, lambda: None, lambda: "ab7", lambda: {}, lambda: ["a", "b", None]),
        *(lambda: ["a", "a", "b", 7], lambda: ["a", "b", 10**5000], lambda: ["a", "b", [7]]),
        *(lambda: ["a", "b", float("nan")], lambda: ["a", "b", True], lambda: ["a", "b"]),
    ],
    "boxes": [
        *(lambda: None, lambda: 5, lambda: "boxes", lambda: [None] * 3, lambda: [BOXES] * 2),
        lambda: [np.array([["0", "0", "9", "9"]] * 2)] * 3,
        lambda: [np.array([[0, 0, 9, 9 + 9j]] * 2)] * 3,
        lambda: [np.array([[True, True, True, True]] * 2)] * 3,
        lambda: [np.array([[np.nan, 0, 9, 9], [0, 0, 9, 9]])] * 3,
        lambda: [np.array([[0, 0, np.inf, 9], [0, 0, 9, 9]])] * 3,
        lambda: [np.array([[9, 9, 0, 0], [0, 0, 9, 9]])] * 3,
        lambda: [np.array([[0, 0, 9, 9], [0, 0, 0, 9]])] * 3,
        lambda: [np.array([[200, 200, 300, 300], [0, 0, 9, 9]])] * 3,
        lambda: [np.array([[0, 0, 1e30, 9], [0, 0, 9, 9]])] * 3,
        lambda: [np.zeros((2, 5))] * 3,
        lambda: [np.zeros((2, 2, 2)) + np.arange(8).reshape(2, 2, 2)] * 3,
        lambda: [np.array([BOXES, BOXES])] * 3,
        lambda: [np.array([0, 0, 9, 9, 0, 0, 9, 9])] * 3,
        lambda: [[[0, 0, 9], [0, 0, 9, 9]]] * 3,
        lambda: [[[0, 0, 9, None], [0, 0, 9, 9]]] * 3,
    ],
    "objectness_logits": [
        *(lambda: None, lambda: [["a", "b"]] * 3, lambda: [{"a": 1}] * 3, lambda: [[0.9]] * 3),
        *(lambda: [[np.nan, 0.1]] * 3, lambda: [[0.9, 0.1, 0.0]] * 3, lambda: [[1j, 0]] * 3),
        *(lambda: [[None, 1]] * 3, lambda: 5),
    ],
    "bbox_mode": [
        *(lambda: 2, lambda: -1, lambda: None, lambda: float("nan"), lambda: float("inf")),
        *(lambda: "0", lambda: 0.5, lambda: 10**30, lambda: [0]),
    ],
}


def _write(folder: Path, random: Random) -> str:
    kind = random.random()
    content = {name: random.choice(values)() for name, values in _VALID.items()}
    if len(content["ids"]) == 4:
        content["boxes"] = [*content["boxes"], BOXES]
        content["objectness_logits"] = [*content["objectness_logits"], [1, 0]]
    if len(content["boxes"][0]) == 0:
        content["objectness_logits"] = [[], *content["objectness_logits"][1:]]
    if kind < 0.15:
        name = random.choice(list(_CRAFTED))
        data, change, is_rejected = _CRAFTED[name](), name, True
    elif kind < 0.55:
        name = random.choice(list(_INVALID))
        content[name] = random.choice(_INVALID[name])()
        data, change, is_rejected = (
            _encode(content, random),
            f"{name} = {shorten(content[name])}",
            True,
        )
    else:
        data, change, is_rejected = _encode(content, random), "valid", False
        if kind < 0.95:
            data, change = mutate_bytes(data, random)
    (folder / _SOURCE).write_bytes(data)
    if is_rejected:
        (folder / REJECTED).touch()
    return change


def _encode(content: Any, random: Random) -> bytes:
    try:
        return pickle.dumps(content, protocol=random.choice((0, 2, 4, 5)))
    except ValueError:  # protocol 0 writes digits, of which Python allows 4,300
        return pickle.dumps(content, protocol=4)


def _read(folder: Path) -> Imported:
    return read_import(folder, _SOURCE)


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def _dump(**changed: Any) -> bytes:
    content = {"ids": list(IMAGES), "boxes": [BOXES] * 3, "objectness_logits": [[1, 0]] * 3}
    return pickle.dumps(content | changed, protocol=4)


def _nest(depth: int) -> Any:
    """A list that refers to itself in a way that makes its text endless."""
    nested: Any = "x"
    for _ in range(depth):
        nested = [nested, nested]
    return nested


def _name(text: bytes) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text


def _build_object_pointers() -> bytes:
    """Bytes of the file as numpy's pointers to objects."""
    numpy_dtype = _name(b"numpy") + _name(b"dtype") + b"\x93" + _name(b"O8") + b"\x89\x88\x87R"
    state = b"(K\x03" + _name(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    payload = struct.pack("<Q", 0x4141414141414141) * 4
    frombuffer = _name(b"numpy.core.numeric") + _name(b"_frombuffer") + b"\x93"
    boxes = frombuffer + b"(C" + bytes([len(payload)]) + payload + numpy_dtype + state
    boxes += b"K\x04\x85" + _name(b"C") + b"tR"
    ids = _name(b"ids") + b"(" + b"".join(map(_name, (b"a", b"b", b"7"))) + b"l"
    logits = _name(b"objectness_logits") + b"((G" + struct.pack(">d", 1) + b"ll"
    return b"\x80\x04(" + ids + _name(b"boxes") + b"(" + boxes + b"l" + logits + b"d."


_CRAFTED: dict[str, Callable[[], bytes]] = {
    "runs code": lambda: _dump(ids=_Call(exec, "raise SystemExit('ran')")),
    "imports os.system": lambda: _dump(ids=_Call(eval, "1")),
    "memo of 2^28": lambda: b"\x80\x02}r" + struct.pack("<I", 2**28) + b".",
    "text of 2^40": lambda: _dump(ids=["a", "b", _nest(40)]),
    "array of 2 GB": lambda: _dump(boxes=_Call(np.ndarray, (2 * 10**9,), "u1")),
    "bytes of 2^40": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "object pointers": _build_object_pointers,
    "deep": lambda: b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "no dict": lambda: pickle.dumps([1, 2, 3]),
    "empty": lambda: b"",
    "keys of any kind": lambda: pickle.dumps({1: 2, None: [], (1, 2): 3}),
}

TARGETS = (Target("pickle", _write, _read, find_fault_in_import, count_skipped),)
