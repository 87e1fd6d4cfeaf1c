"""Puts the logs of a start into the store, in a thread of its own: a store that fails never harms the job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from time import monotonic

from pipeline import storage, uris
from pipeline.errors import PipelineError
from pipeline.runs.log_documents import LogDocument

log = logging.getLogger(__name__)

FIRST_PUT = 5.0
"""Seconds after the start until the first put: what a job that dies early leaves."""
PUT_EVERY = 30.0
"""Seconds between puts of a document that changes."""
LAST_PUT_SECONDS = 10.0
"""Seconds that a job waits at its end for the last put."""


class LogWriter:
    """Puts documents that changed, each whole under its name."""

    def __init__(
        self,
        folder: str,
        documents: Mapping[str, LogDocument],
        put_every: float = PUT_EVERY,
        *,
        note_silence: Callable[[], None],
    ) -> None:
        """Prepare a writer.

        Args:
            folder: URI of the folder.
            documents: by the name of their object.
            put_every: seconds between two puts; the first one follows after at most `FIRST_PUT`.
            note_silence: changes a document if none has changed since the last put, so that each put shows
                that the driver lives.
        """
        self._folder = folder
        self._documents = documents
        self._put_every = put_every
        self._note_silence = note_silence
        self._put_revisions = dict.fromkeys(documents, 0)
        self._is_failing = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True, name="write-logs")

    def start(self) -> None:
        """Begin to put what changes."""
        self._thread.start()

    def close(self) -> bool:
        """Put what has changed since, and end; returns whether the store took everything in time.

        A put that the store does not answer continues in a thread that the process does not wait for.
        """
        self._ended.set()
        self._thread.join(LAST_PUT_SECONDS)
        return not self._thread.is_alive() and not self._is_failing

    def _write(self) -> None:
        wait = min(FIRST_PUT, self._put_every)
        while not self._ended.wait(wait):
            began = monotonic()
            if not self._list_changed():
                self._note_silence()
            self._put_changed()
            wait = max(0.1, self._put_every - (monotonic() - began))
        self._put_changed()

    def _list_changed(self) -> list[str]:
        documents = self._documents.items()
        return [name for name, log in documents if log.revision != self._put_revisions[name]]

    def _put_changed(self) -> None:
        for name in self._list_changed():
            document = self._documents[name]
            revision = document.revision
            try:
                storage.put(uris.join(self._folder, name), document.encode())
            except Exception as error:
                self._note_failure(error)
                return
            self._put_revisions[name] = revision
        self._is_failing = False

    def _note_failure(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            kind = "" if isinstance(error, PipelineError) else f"{type(error).__name__}: "
            log.warning(
                "the logs cannot be written, the run goes on without: %s%s",
                kind,
                str(error).partition("\n")[0],
            )
