"""The files that a job logs into its output's folder `logs`: no two starts of a job share one.

A start is one execution of a job's command; a resumed run has several, and two may work at once. Its index
orders it after the starts that the folder lists; its random id keeps apart two that begin at the same moment.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline import storage, uris

FOLDER = "logs"
"""The folder below an output."""
LogKind = Literal["driver", "errors", "progress"]
_ENDINGS: dict[LogKind, str] = {"driver": ".log", "errors": ".jsonl", "progress": ".jsonl"}
LOG_NAME = re.compile(
    r"driver-\d{4,}-[0-9a-f]{8}\.log|(?:errors|progress)-\d{4,}-[0-9a-f]{8}\.jsonl"
)
"""The names of log files; no other file in the folder is ever removed."""
_START = re.compile(r"(driver|errors|progress)-(\d{4,})-([0-9a-f]{8})\.")
WRITES = tuple(f"{FOLDER}/{kind}-*{ending}" for kind, ending in _ENDINGS.items())
"""Glob patterns, below an output, of what is logged."""


@dataclass(frozen=True, order=True)
class Start:
    """One execution of a job's command on an output."""

    index: int
    """Its place in the order of the starts, from 1; starts at the same moment may share it."""
    id: str
    """8 random hexadecimal digits."""

    def name_file(self, kind: LogKind) -> str:
        """The name of one of its files in the folder."""
        return f"{kind}-{self.index:04d}-{self.id}{_ENDINGS[kind]}"


def choose_start(earlier: Iterable[Start]) -> Start:
    """A new start, after all `earlier` ones."""
    return Start(max((start.index for start in earlier), default=0) + 1, secrets.token_hex(4))


def find_starts(names: Iterable[str]) -> list[Start]:
    """The starts that these files belong to, in order; other names are left out."""
    matches = [_START.match(name) for name in names if LOG_NAME.fullmatch(name)]
    return sorted({Start(int(match[2]), match[3]) for match in matches if match})


def list_log_files(output: str) -> list[str]:
    """The names of the log files in an output's folder `logs`, sorted.

    Raises:
        StorageError: the store cannot be reached.
    """
    names = storage.list_names(uris.join(output, FOLDER))
    return [name for name in names if LOG_NAME.fullmatch(name)]


def remove_log_files(output: str, names: Iterable[str]) -> None:
    """Remove these files from an output's folder `logs`."""
    for name in names:
        storage.remove(uris.join(output, FOLDER, name))
