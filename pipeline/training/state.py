"""Resumable states of a training: one object each, and a pointer to the latest that is put last.

A state holds weights, optimiser and the number of steps done; schedule, sample stream and dropout are
functions of that number. If a writer dies or a store fails half way, the pointer still names the previous
state.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

from pipeline import storage, uris
from pipeline.errors import InvalidCheckpoint, MissingObject

FOLDER = "steps"
POINTER = "latest.json"
REMAINS = (f"{FOLDER}/{POINTER}", "model.json")
"""Objects that show that a training wrote an output."""
STATES = 2
"""States that stay: the latest, and the one before it, which a reader may still read."""


@dataclass(frozen=True)
class LatestState:
    """How far a training came."""

    step: int
    """Steps done."""
    is_finished: bool
    """Whether the final network is written."""


def _folder(output: str) -> str:
    return uris.join(output, FOLDER)


def _name(step: int) -> str:
    return f"state-{step:09d}.pt"


def read_latest_state(output: str) -> LatestState | None:
    """The latest state of an output, or None if training has not written one.

    Raises:
        InvalidCheckpoint: the pointer is damaged.
    """
    uri = uris.join(_folder(output), POINTER)
    try:
        pointer = json.loads(storage.read(uri))
        return LatestState(int(pointer["step"]), bool(pointer["finished"]))
    except MissingObject:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged; remove it to train from the start"
        ) from error


def set_latest_state(output: str, step: int, is_finished: bool) -> None:
    """Make the state of `step` the latest."""
    pointer = json.dumps({"step": step, "finished": is_finished, "state": _name(step)})
    storage.put(uris.join(_folder(output), POINTER), pointer.encode() + b"\n")


def save_state(output: str, step: int, values: dict[str, Any]) -> None:
    """Put a state, point to it, then remove older ones.

    Args:
        output: the training's output.
        step: steps done.
        values: state dicts and plain values.

    Raises:
        StorageError: the store failed; the latest state is the one before.
    """
    import torch  # noqa: PLC0415  a driver reads the pointer without torch

    buffer = io.BytesIO()
    torch.save({"step": step, **values}, buffer)
    storage.put(uris.join(_folder(output), _name(step)), buffer.getvalue())
    set_latest_state(output, step, is_finished=False)
    states = [name for name in storage.list_names(_folder(output)) if name.startswith("state-")]
    for name in sorted(name for name in states if name <= _name(step))[:-STATES]:
        storage.remove(uris.join(_folder(output), name))


def load_state(output: str, step: int) -> dict[str, Any]:
    """The state of a step, on the CPU.

    Raises:
        InvalidCheckpoint: it is missing or damaged.
    """
    import torch  # noqa: PLC0415

    uri = uris.join(_folder(output), _name(step))
    hint = f"remove {POINTER} beside it to train from the start"
    try:
        content = storage.read(uri)
    except MissingObject as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is missing, but {POINTER} names it; {hint}"
        ) from error
    try:
        return dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # torch's unpickler fails in many ways on bytes that are no pickle
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged ({len(content)} bytes); {hint}"
        ) from error


def clear_training(output: str) -> None:
    """Remove an earlier training: the pointer first, so that no run resumes from half of it."""
    for name in (*REMAINS, "model.safetensors"):
        storage.remove(uris.join(output, name))
    for folder in (FOLDER, "logs", "best"):
        for name in storage.list_names(uris.join(output, folder)):
            storage.remove(uris.join(output, folder, name))
