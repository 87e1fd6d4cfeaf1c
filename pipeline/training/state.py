"""Resumable states of a training: one object each, and a pointer to the latest that is put last.

A state holds weights, optimiser and the number of steps done; schedule, sample stream and dropout are
functions of that number. A writer that dies, or a store that fails half way, leaves the pointer on the
state before.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import torch

from pipeline import storage
from pipeline.errors import InvalidCheckpoint

FOLDER = "steps"
POINTER = "latest.json"
KEPT = 2
"""States that stay: the latest, and the one before it in case a reader is at it."""


@dataclass(frozen=True)
class Latest:
    """How far a training came."""

    step: int
    """Steps that the latest state has behind it."""
    finished: bool
    """Whether the final model is written."""


def _folder(output: str) -> str:
    return storage.join(output, FOLDER)


def _name(step: int) -> str:
    return f"state-{step:09d}.pt"


def latest(output: str) -> Latest | None:
    """The latest state of an output, or None where training has not written one.

    Raises:
        InvalidCheckpoint: the pointer is damaged.
    """
    uri = storage.join(_folder(output), POINTER)
    try:
        told = json.loads(storage.read(uri))
        return Latest(int(told["step"]), bool(told["finished"]))
    except storage.MissingObject:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidCheckpoint(
            f"{storage.shown(uri)} is damaged; remove it to train from the start"
        ) from error


def point_to(output: str, step: int, finished: bool) -> None:
    """Make the state of `step` the latest."""
    told = json.dumps({"step": step, "finished": finished, "state": _name(step)})
    storage.put(storage.join(_folder(output), POINTER), told.encode() + b"\n")


def save(output: str, step: int, values: dict[str, Any]) -> None:
    """Put a state, point to it, then remove older ones.

    Args:
        output: the training's output.
        step: steps done.
        values: state dicts and plain values.

    Raises:
        StorageError: the store failed; the latest state is the one before.
    """
    buffer = io.BytesIO()
    torch.save({"step": step, **values}, buffer)
    storage.put(storage.join(_folder(output), _name(step)), buffer.getvalue())
    point_to(output, step, finished=False)
    states = [name for name in storage.names(_folder(output)) if name.startswith("state-")]
    for name in sorted(name for name in states if name <= _name(step))[:-KEPT]:
        storage.remove(storage.join(_folder(output), name))


def load(output: str, step: int) -> dict[str, Any]:
    """The state of a step, on the CPU.

    Raises:
        InvalidCheckpoint: it is missing or damaged.
    """
    uri = storage.join(_folder(output), _name(step))
    hint = f"remove {POINTER} beside it to train from the start"
    try:
        data = storage.read(uri)
    except storage.MissingObject as error:
        raise InvalidCheckpoint(
            f"{storage.shown(uri)} is missing, though {POINTER} names it; {hint}"
        ) from error
    try:
        return dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as error:  # torch's unpickler fails in many ways on bytes that are no pickle
        raise InvalidCheckpoint(
            f"{storage.shown(uri)} is damaged ({len(data)} bytes); {hint}"
        ) from error


def left(output: str) -> bool:
    """Whether a checkpoint or a state lies in the output."""
    pointer = storage.join(FOLDER, POINTER)
    return any(storage.exists(storage.join(output, name)) for name in (pointer, "model.json"))


def clear(output: str) -> None:
    """Remove what an earlier training wrote: the pointer first, so that nothing half removed is resumed."""
    for name in (storage.join(FOLDER, POINTER), "model.json", "model.safetensors"):
        storage.remove(storage.join(output, name))
    for folder in (FOLDER, "logs", "best"):
        for name in storage.names(storage.join(output, folder)):
            storage.remove(storage.join(output, folder, name))
