"""The logs of one start of a job, in its output: the driver's log, worker errors, progress samples.

They outlive the cluster. Each start has files of its own (`pipeline/log_files.py`), each bounded in size
(`log_documents.py`), without secrets (`secret_mask.py`) and put by a thread (`log_writer.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shlex
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from pipeline import __version__, log_files, uris
from pipeline.errors import PipelineError, StorageError
from pipeline.log_files import LogKind, Start
from pipeline.printable import LineFormatter, escape_unprintable
from pipeline.progress_samples import ProgressSample
from pipeline.runs.log_documents import ErrorLog, LineLog, LogDocument, SampleSeries
from pipeline.runs.log_writer import PUT_EVERY, LogWriter
from pipeline.secret_mask import SecretMask

log = logging.getLogger(__name__)

KEPT_STARTS = 100
"""Starts whose logs an output keeps; a new start removes those of older ones."""
_EARLY_RECORDS = 500
WORKER_ERROR = "worker_error"
"""Attribute of a record (`extra` of a logging call): the error of a worker that lies behind the message."""


class EarlyRecords(logging.Handler):
    """Keeps the records of a job until its output is open, so that the driver's log begins with them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=_EARLY_RECORDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


class _LineHandler(logging.Handler):
    """Formats records, in UTC and without secrets, as lines of the driver's log."""

    def __init__(
        self,
        lines: LineLog,
        mask: SecretMask,
        record_error: Callable[[Mapping[str, Any], str], None],
    ) -> None:
        super().__init__(logging.INFO)
        self.mask = mask
        self._lines = lines
        self._record_error = record_error
        formatter = LineFormatter("%(asctime)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record's line; it must never raise into the code that logs."""
        try:
            text = self.mask.hide(self.format(record))
            self._lines.add(_escape_lines(text))
            error = getattr(record, WORKER_ERROR, None)
            if error is not None:
                self._record_error({"error": record.getMessage()}, str(error))
        except Exception:
            self.handleError(record)


class RunLogs:
    """The logs of one start; a context manager around the work of the job."""

    def __init__(
        self,
        output: str,
        *,
        clock: Callable[[], float] = monotonic,
        put_every: float = PUT_EVERY,
    ) -> None:
        """Prepare the logs.

        Args:
            output: the folder that gets `logs`; any fsspec URI.
            clock: the time in seconds; only differences count.
            put_every: seconds between puts.
        """
        self._output = output
        self._clock = clock
        self._put_every = put_every
        self._began = clock()
        self._mask = SecretMask()
        """Made again at the start: a token of Ray may have come since."""
        self._lines = LineLog()
        self._errors = ErrorLog()
        self._samples = SampleSeries()
        self._documents: dict[LogKind, LogDocument] = {
            "driver": self._lines,
            "errors": self._errors,
            "progress": self._samples,
        }
        self._handler = _LineHandler(self._lines, self._mask, self.record_error)
        self._earlier: list[str] = []
        """Names of the files of earlier starts."""
        self._start: Start | None = None
        self._writer: LogWriter | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    def __enter__(self) -> RunLogs:
        self._began = self._clock()
        self._mask = self._handler.mask = SecretMask()
        start = self._start = self._choose_start()
        folder = uris.join(self._output, log_files.FOLDER)
        documents = {start.name_file(kind): log for kind, log in self._documents.items()}
        self._writer = LogWriter(
            folder, documents, self._put_every, note_silence=self._note_silence
        )
        self._add_heading(start)
        root = logging.getLogger()
        for handler in root.handlers:
            if isinstance(handler, EarlyRecords):
                for record in tuple(handler.records):
                    if record.levelno >= self._handler.level:
                        self._handler.handle(record)
        root.addHandler(self._handler)
        self._writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.add_lines(_describe_end(error))
        logging.getLogger().removeHandler(self._handler)
        assert self._writer is not None
        if not self._writer.close():
            log.warning("the last lines of the logs could not be written in time")

    def _choose_start(self) -> Start:
        """This start, after those in the folder; the logs of the oldest ones are removed."""
        try:
            self._earlier = log_files.list_log_files(self._output)
        except StorageError as error:
            log.info("earlier logs cannot be listed: %s", error)
        starts = log_files.find_starts(self._earlier)
        with contextlib.suppress(StorageError):
            self._remove_oldest(starts)
        return log_files.choose_start(starts)

    def _remove_oldest(self, starts: Sequence[Start]) -> None:
        oldest = set(starts[: max(0, len(starts) - KEPT_STARTS + 1)])
        stale = {n for n in self._earlier if oldest.intersection(log_files.find_starts([n]))}
        log_files.remove_log_files(self._output, sorted(stale))
        self._earlier = [name for name in self._earlier if name not in stale]

    def _add_heading(self, start: Start) -> None:
        command = shlex.join([os.path.basename(sys.executable), *sys.argv])  # noqa: PTH119
        self.add_lines(
            f"start {start.index} ({start.id}) of fast-rcnn-pipeline {__version__}, "
            f"Python {platform.python_version()}, process {os.getpid()} on {platform.node()}",
            f"command: {command}",
        )

    def add_lines(self, *lines: str) -> None:
        """Add lines to the driver's log that the terminal shows otherwise."""
        for line in lines:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._lines.add(f"{now} {_escape_lines(self._mask.hide(line))}")

    def _note_silence(self) -> None:
        """Show readers of the output that the driver lives, though nothing else was logged."""
        self.add_lines(f"still at work after {self.elapsed:.0f} s")

    def record_error(self, values: Mapping[str, Any], text: str) -> None:
        """Keep what lies behind an error of a worker.

        Args:
            values: JSON values that say what failed and what follows; texts among them are redacted.
            text: the traceback of the worker, or what Ray says about its loss.
        """
        shown = {k: self._mask.hide(v) if isinstance(v, str) else v for k, v in values.items()}
        elapsed = {"elapsed": round(self.elapsed, 1)}
        self._errors.add(elapsed | shown, self._mask.hide(text))

    def is_sample_due(self) -> bool:
        """Whether it is time for a sample of progress."""
        return self._samples.is_due(self.elapsed)

    def add_sample(self, sample: ProgressSample) -> None:
        """Keep a sample of progress."""
        self._samples.add(sample)

    def list_names(self) -> list[str]:
        """The log files of the output, below it: those of earlier starts and what this one has."""
        start = self._start
        if start is None:  # this start had nothing to do and logs nothing
            with contextlib.suppress(StorageError):
                self._earlier = log_files.list_log_files(self._output)
            return [f"{log_files.FOLDER}/{name}" for name in self._earlier]
        own = [start.name_file(kind) for kind, log in self._documents.items() if log.revision]
        return [f"{log_files.FOLDER}/{name}" for name in sorted({*self._earlier, *own})]


def _escape_lines(text: str) -> str:
    """The text with what does not print as escapes, apart from its line ends."""
    return "\n".join(map(escape_unprintable, text.split("\n")))


def _describe_end(error: BaseException) -> str:
    """How the work ended, as the job prints it; a defect with its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    if isinstance(error, PipelineError):
        return f"error: {' '.join(str(error).split())}"
    return "".join(traceback.format_exception(error)).rstrip()
