"""What a run came to: summary.json in its output, a few lines on the terminal, the failed-image limit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

from pipeline import storage
from pipeline.errors import PipelineError, ShardFailed, StorageError, TooManyFailedImages
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, TakenOver
from pipeline.runs.report import Report

log = logging.getLogger(__name__)

WAITS = (1.0, 5.0, 20.0)
"""Seconds before the end of a run is tried again."""


@dataclass
class Summary:
    """The result of a run over shards."""

    output: str
    images: int
    """Images in the output."""
    shards: int
    done_before: int
    """Images that earlier runs had committed."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failed images of the whole output, by stage and error type."""
    report: Report = field(default_factory=Report)
    """Sums over what this run did."""
    seconds: float = 0.0
    """Of the whole run on the cluster."""
    start_seconds: float = 0.0
    """Of them, before the first shard was started: kernels compiled, detectors loaded."""
    labelled: bool = False
    """Whether the manifest names classes, so that the output can be scored against it."""
    utilisation: dict[str, float] = field(default_factory=dict)
    """Busy share of each stage's slots, 0 to 1, over this run."""
    rerun: str = "the same command"
    """The command that goes on with the run, in words."""
    began: float = field(default_factory=monotonic)

    @property
    def images_failed(self) -> int:
        """Failed images in the output."""
        return sum(self.failed.values())

    @property
    def rate(self) -> float:
        """Images per second of this run, start-up left out."""
        working = self.seconds - self.start_seconds
        return (self.images - self.done_before) / working if working > 0 else 0.0

    def work_begins(self) -> None:
        """The start-up is over."""
        self.start_seconds = monotonic() - self.began

    def as_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        return {
            "images": self.images,
            "images_done_before": self.done_before,
            "images_failed": self.images_failed,
            "failed": dict(self.failed),
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "start_seconds": round(self.start_seconds, 3),
            "images_per_second": round(self.rate, 3),
            "stage_seconds": {name: round(value, 3) for name, value in self.report.seconds.items()},
            "utilisation": {name: round(value, 3) for name, value in self.utilisation.items()},
            "counts": dict(self.report.counts),
            "output": storage.shown(self.output),
        }

    def lines(self) -> list[str]:
        """What a person wants to know at the end."""
        failed = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in self.report.seconds.items())
        told = [
            f"{self.images} images in {self.shards} shards, {self.images_failed} failed"
            + (f" ({failed})" if failed else "")
            + (f"; {self.done_before} were done before" if self.done_before else ""),
        ]
        if self.images > self.done_before:
            told.append(
                f"{self.seconds:.1f} s, {self.start_seconds:.1f} of them to start; then "
                f"{self.rate:.1f} images/s; worker time: {stages}"
            )
            busy = ", ".join(f"{name} {share:.0%}" for name, share in self.utilisation.items())
            told.append(f"slots in use: {busy}")
        told.append(f"output: {storage.shown(self.output)}")
        return told


def _end(ready: RunOutput, summary: Summary) -> None:
    """Count, clean and put the summary, as patiently as the rest of the run.

    Raises:
        ShardFailed: the store has trouble and goes on having it.
    """
    summary.seconds = monotonic() - summary.began
    for wait in (*WAITS, None):
        try:
            summary.failed = ready.failed_before() + summary.report.failed
            ready.finish(summary.as_json())
        except StorageError as error:
            if wait is None:
                raise ShardFailed(
                    f"{error}; every image is committed, {summary.rerun} writes the summary"
                ) from error
            log.warning("to end the run: %s", error)
            sleep(wait)
        else:
            return


@contextmanager
def summarise(ready: RunOutput, options: RunOptions) -> Iterator[Summary]:
    """Time the run in the block; when it ends well, clean the output and write its summary.

    Where it does not, the log says how to go on.

    Raises:
        TooManyFailedImages: after all is committed, if more than the fraction failed.
    """
    summary = Summary(
        ready.uri, ready.rows, len(ready.shards), ready.rows_committed, rerun=options.rerun
    )
    try:
        yield summary
        _end(ready, summary)
    except KeyboardInterrupt:
        log.warning(
            "stopped: %d of %d images are committed in %s; %s does the rest",
            summary.done_before + summary.report.images,
            summary.images,
            storage.shown(ready.uri),
            options.rerun,
        )
        raise
    except PipelineError as error:
        if options.overwrite and not isinstance(error, TakenOver):
            log.warning("to go on with what is committed: %s", options.rerun)
        raise
    if summary.images_failed > options.max_failed_fraction * summary.images:
        for line in summary.lines():
            log.info(line)
        common = ", ".join(f"{n} {reason}" for reason, n in summary.failed.most_common(3))
        raise TooManyFailedImages(
            f"{summary.images_failed} of {summary.images} images failed ({common}), more than the "
            f"allowed fraction of {options.max_failed_fraction:g}; "
            f"the output {storage.shown(ready.uri)} is complete"
        )
