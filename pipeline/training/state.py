"""Resumable states of a training: one object each, and a pointer to the latest that is put last.

A state holds weights, optimiser and the number of steps done; schedule, sample stream and dropout are
functions of that number. If a writer dies or a store fails half way, the pointer still names the previous
state. Pointer and state hold the fingerprint of their run, so that one training never resumes from the state
of another that wrote into the same output late.
"""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

from pipeline import storage, uris
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.errors import InvalidCheckpoint, MissingObject
from pipeline.json_reader import InvalidJson, parse_fields

log = logging.getLogger(__name__)

FOLDER = "steps"
POINTER = "latest.json"
STATE_NAME = re.compile(r"state-\d{9,}\.pt")
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


def read_latest_state(output: str, run: str = "") -> LatestState | None:
    """The latest state of an output, or None if training has not written one.

    Args:
        output: the training's output.
        run: the run's fingerprint; a pointer that another run put counts as none. Pointers of earlier
            releases hold no fingerprint and count.

    A training counts as finished only if its final network is there: if it is missing or truncated, the
    state writes it again.

    Raises:
        InvalidCheckpoint: the pointer is damaged.
    """
    uri = uris.join(_folder(output), POINTER)
    try:
        pointer = parse_fields(storage.read(uri))
        step, is_finished = pointer.read_integer("step"), pointer.read_flag("finished")
        owner = pointer.read_text("run", "")
    except MissingObject:
        return None
    except InvalidJson as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged ({error}); remove it to train from the start"
        ) from error
    if run and owner not in ("", run):
        log.warning("%s is of another run and is left out", uris.redact_uri(uri))
        return None
    return LatestState(step, is_finished and _has_final_network(output))


def _has_final_network(output: str) -> bool:
    try:
        read_checkpoint_record(output)
    except InvalidCheckpoint as error:
        log.warning("the training is finished, but its network is not usable: %s", error)
        return False
    return True


def set_latest_state(output: str, step: int, is_finished: bool, run: str = "") -> None:
    """Make the state of `step` the latest of the run with this fingerprint."""
    pointer = {"step": step, "finished": is_finished, "state": _name(step), "run": run}
    storage.put(uris.join(_folder(output), POINTER), json.dumps(pointer).encode() + b"\n")


def save_state(output: str, step: int, values: dict[str, Any], run: str = "") -> None:
    """Put a state, point to it, then remove older ones.

    If a second driver of the same run is ahead, its state stays the latest and nothing is put: the pointer
    never goes back to a state that the other driver has removed.

    Args:
        output: the training's output.
        step: steps done.
        values: state dicts and plain values.
        run: the run's fingerprint.

    Raises:
        StorageError: the store failed; the latest state is the one before.
    """
    import torch  # noqa: PLC0415  a driver reads the pointer without torch

    latest = read_latest_state(output, run)
    if latest is not None and latest.step >= step:
        log.info("step %d: another driver of this training is at step %d", step, latest.step)
        return
    buffer = io.BytesIO()
    torch.save({"step": step, "run": run, **values}, buffer)
    storage.put(uris.join(_folder(output), _name(step)), buffer.getvalue())
    set_latest_state(output, step, is_finished=False, run=run)
    states = [name for name in storage.list_names(_folder(output)) if STATE_NAME.fullmatch(name)]
    for name in sorted(name for name in states if name <= _name(step))[:-STATES]:
        storage.remove(uris.join(_folder(output), name))


def load_state(output: str, step: int, run: str = "") -> dict[str, Any]:
    """The state of a step, on the CPU.

    Raises:
        InvalidCheckpoint: it is missing, damaged, of another step, or of another run than the one with
            this fingerprint.
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
        values = dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:  # torch's unpickler fails in many ways on bytes that are no pickle
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged ({len(content)} bytes); {hint}"
        ) from error
    if values.get("step") != step:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} holds step {values.get('step')!r:.40}, not the one in its name; {hint}"
        )
    if run and values.get("run", "") not in ("", run):
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is of another training that wrote into the same output; {hint}"
        )
    return values
