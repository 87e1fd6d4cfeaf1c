"""What the shard runner and its workers exchange: pieces of shards, pictures, failures, reports."""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage
from pipeline.errors import UnreadableDataset
from pipeline.manifest import Manifest
from pipeline.shards import Shard, digest, put_part, shard_key

OF_A_PICTURE = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
)
"""Errors that computing on a picture's pixels may end in, and that fail it. Others, such as a disk that is
full, may be its node's fault: the shard is tried again, perhaps elsewhere."""


@dataclass(frozen=True)
class Piece:
    """Rows of one shard that one task works on: all of them, or a single picture on its own."""

    shard: Shard
    row: int | None = None
    """The picture's row in the shard, or None for the whole shard, which is then committed."""

    @property
    def whole(self) -> bool:
        """Whether the piece is the whole shard."""
        return self.row is None

    @property
    def rows(self) -> int:
        """Pictures in the piece."""
        return self.shard.rows if self.whole else 1

    def image_rows(self, manifest: Manifest, fingerprint: str) -> list[tuple[str, str]]:
        """The (image_id, uri) of the piece's pictures.

        Raises:
            UnreadableDataset: the manifest no longer holds the pictures that the shard was made of.
        """
        table = manifest.read(self.shard.first_row, self.shard.rows, ["image_id", "uri"])
        ids, uris = table["image_id"].to_pylist(), table["uri"].to_pylist()
        if shard_key(fingerprint, digest(ids, uris)) != self.shard.key:
            raise UnreadableDataset(
                f"{storage.shown(manifest.uri)}: rows from {self.shard.first_row} changed "
                "while the run was at work"
            )
        rows = list(zip(ids, uris, strict=True))
        return rows if self.row is None else rows[self.row : self.row + 1]


@dataclass(frozen=True)
class Failure:
    """Why a picture has no result: at which stage, what kind of error, in words that do not vary."""

    stage: str
    error_type: str
    message: str

    @classmethod
    def of(cls, stage: str, error: BaseException) -> Failure:
        """The failure that an exception stands for."""
        lines = str(error).splitlines() or [""]
        return cls(stage, type(error).__name__, lines[0][:500])


@dataclass
class Picture:
    """One picture on its way from the CPU tasks to a detector: encoded bytes and proposals."""

    image_id: str
    uri: str
    width: int | None = None
    height: int | None = None
    data: bytes | None = None
    boxes: NDArray[np.float32] | None = None
    failure: Failure | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded picture and its boxes."""
        return len(self.data or b"") + (0 if self.boxes is None else self.boxes.nbytes)


@dataclass
class Report:
    """What a piece of work came to."""

    images: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Pictures by stage and error type."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, summed over workers."""
    counts: Counter[str] = field(default_factory=Counter)
    """Other sums: boxes, detections, bytes."""
    table: pa.Table | None = None
    """The rows of a piece that is not committed by its worker."""

    def add(self, other: Report) -> None:
        """Add another report's sums to this one."""
        self.images += other.images
        self.failed.update(other.failed)
        for stage, seconds in other.seconds.items():
            self.add_seconds(stage, seconds)
        self.counts.update(other.counts)

    def fail(self, failure: Failure) -> None:
        """Count a failed picture."""
        self.failed[f"{failure.stage}: {failure.error_type}"] += 1

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add_seconds(stage, perf_counter() - start)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def finished(piece: Piece, output: str, table: pa.Table, report: Report) -> Report:
    """The report of a piece that is done: a whole shard is committed, a picture's row goes along."""
    report.images = len(table)
    if piece.whole:
        with report.timed("commit"):
            report.counts["bytes"] += put_part(output, piece.shard, table)
    else:
        report.table = table
    return report


def end_after(seconds: float) -> None:
    """End this process in `seconds` from now, unless this is called again or a `time_limit` ends before."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer than `seconds`, or than `end_after` says in it.

    Compiled code cannot be interrupted, so a picture that hangs takes its worker with it; faulthandler's
    watchdog is a C thread that works even while the interpreter's lock is held. The driver sees the
    worker's death and does the shard again, at last one picture per task.
    """
    end_after(seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
