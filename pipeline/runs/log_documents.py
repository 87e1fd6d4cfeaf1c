"""What a start of a job logs, held in memory within bounds, since objects of a store cannot grow.

Each document is put whole again and again; `revision` tells whether it changed since.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from pipeline.progress_samples import ProgressSample, format_samples

FIRST_LINES_BYTES = 64 << 10
LAST_LINES_BYTES = 192 << 10
"""How much of the beginning and of the end of the driver's log is kept."""
MOST_ERRORS = 500
MOST_ERROR_BYTES = 512 << 10
MOST_TEXT = 12_000
"""Characters of one error's text: its beginning names the task, its end the cause."""
MOST_SAMPLES = 1000
MOST_SAMPLE_BYTES = 384 << 10
FIRST_INTERVAL = 1.0
"""Seconds between the first samples; the interval doubles whenever the series is full."""
_NUMBER = re.compile(r"\d+")


class LogDocument(Protocol):
    """One file of the logs."""

    revision: int
    """Grows with each change; 0 means that there is nothing to put."""

    def encode(self) -> bytes:
        """The whole content."""


class LineLog:
    """Lines of text: the first ones and the last ones, with a note about how many lie between."""

    def __init__(
        self, first_bytes: int = FIRST_LINES_BYTES, last_bytes: int = LAST_LINES_BYTES
    ) -> None:
        self.revision = 0
        self._lock = threading.Lock()
        self._first: list[bytes] = []
        self._first_room = first_bytes
        self._last: deque[bytes] = deque()
        self._last_room = last_bytes
        self._longest = last_bytes // 8
        """Bytes of a line, so that one line alone cannot displace all others."""
        self._left_out = 0

    def add(self, line: str) -> None:
        """Add a line, which may hold line ends itself."""
        data = line.encode("utf-8", "backslashreplace")[: self._longest] + b"\n"
        with self._lock:
            self.revision += 1
            if not self._last and len(data) <= self._first_room:
                self._first.append(data)
                self._first_room -= len(data)
                return
            self._first_room = 0
            self._last.append(data)
            self._last_room -= len(data)
            while self._last_room < 0:
                self._last_room += len(self._last.popleft())
                self._left_out += 1

    def encode(self) -> bytes:
        """The lines."""
        with self._lock:
            note = f"... {self._left_out} lines left out ...\n".encode() if self._left_out else b""
            return b"".join((*self._first, note, *self._last))


class ErrorLog:
    """Errors as JSON lines; a text that occurred before is only referred to."""

    def __init__(self) -> None:
        self.revision = 0
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._room = MOST_ERROR_BYTES
        self._left_out = 0
        self._numbers: dict[str, int] = {}
        """Line of the first error with a text, by the text without its numbers, such as process ids."""

    def add(self, values: Mapping[str, Any], text: str) -> None:
        """Add an error.

        Args:
            values: JSON values that say what failed and what follows.
            text: the traceback, or what Ray says about a lost worker.
        """
        with self._lock:
            self.revision += 1
            key = _NUMBER.sub("", text)
            first = self._numbers.get(key)
            shown = {"traceback": shorten(text)} if first is None else {"traceback_of_line": first}
            line = json.dumps({**values, **shown}, default=str).encode() + b"\n"
            if len(self._lines) >= MOST_ERRORS or len(line) > self._room:
                self._left_out += 1
                return
            self._lines.append(line)
            self._room -= len(line)
            self._numbers.setdefault(key, len(self._lines))

    def encode(self) -> bytes:
        """The lines, and how many errors are left out."""
        with self._lock:
            end = json.dumps({"left_out": self._left_out}).encode() + b"\n"
            return b"".join(self._lines) + (end if self._left_out else b"")


def shorten(text: str) -> str:
    """A text with its middle left out if it is long."""
    if len(text) <= MOST_TEXT:
        return text
    end = MOST_TEXT * 3 // 4
    left_out = len(text) - MOST_TEXT
    return f"{text[: MOST_TEXT - end]}\n... {left_out} characters left out ...\n{text[-end:]}"


class SampleSeries:
    """Samples of progress, at most about a thousand: a longer job is sampled less often."""

    def __init__(self) -> None:
        self.revision = 0
        self.interval = FIRST_INTERVAL
        """Seconds between samples."""
        self._lock = threading.Lock()
        self._samples: list[ProgressSample] = []
        self._next = 0.0

    def is_due(self, elapsed: float) -> bool:
        """Whether it is time for the next sample."""
        return elapsed >= self._next

    def add(self, sample: ProgressSample) -> None:
        """Add a sample that is later than all others."""
        with self._lock:
            self.revision += 1
            self._samples.append(sample)
            self._next = sample.elapsed + self.interval
            while len(self._samples) > 2 and self._is_full():
                self._samples = self._samples[(len(self._samples) - 1) % 2 :: 2]  # keeps the last
                self.interval *= 2

    def _is_full(self) -> bool:
        """Whether the samples are too many, or half of the largest size, which is measured now and then."""
        if len(self._samples) > MOST_SAMPLES:
            return True
        is_measured = len(self._samples) & (len(self._samples) - 1) == 0  # at powers of two
        return is_measured and len(format_samples(self._samples)) > MOST_SAMPLE_BYTES // 2

    def encode(self) -> bytes:
        """The samples as JSON lines."""
        with self._lock:
            samples = list(self._samples)
        return format_samples(samples)
