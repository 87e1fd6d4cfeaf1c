"""One kind of input: how it is written, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pipeline.errors import PipelineError

LONGEST_MESSAGE = 20_000
"""Characters of an error message: one that repeats its whole input helps nobody."""


@dataclass(frozen=True)
class Target:
    """One kind of input and the calls that read it."""

    kind: str
    write: Callable[[Path, Random], str]
    """Writes an input into an empty folder and says how it differs from a valid one."""
    read: Callable[[Path], Any]
    """Reads the folder's input through the public API, as a job does."""
    find_fault: Callable[[Path, Any], str | None]
    """What is wrong with the answer to the folder's input; None if the input may be read like this."""
    count_skipped: Callable[[Any], int] = lambda _: 0
    """How many images or boxes the answer says to have left out."""
    secrets: tuple[str, ...] = ()
    """Texts of the input that no error message may show."""


def find_fault_in_error(target: Target, error: PipelineError) -> str | None:
    """What is wrong with the message of a named error; None if a user can act on it."""
    message = str(error)
    if not message.strip():
        return f"{type(error).__name__} without a message"
    if len(message) > LONGEST_MESSAGE:
        return f"{type(error).__name__} with a message of {len(message)} characters"
    for secret in target.secrets:
        if secret in message:
            return f"{type(error).__name__} shows a secret: {message[:200]}"
    return None
