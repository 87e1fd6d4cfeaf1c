"""The end of a run: summary.json in its output, a few lines for the terminal, the failed-image limit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import Any

from pipeline import uris
from pipeline.errors import PipelineError, ShardFailed, StorageError, TooManyFailedImages
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.resume import TakenOver

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkDone:
    """What a run did for its output."""

    output: RunOutput
    """The output as it is at the end of the work: its record may have resolved values since."""
    report: Report = field(default_factory=Report)
    """Sums over what this run did."""
    work_began: float | None = None
    """The `monotonic` time at which the first shard was started; None if there was nothing to do."""
    utilisation: dict[str, float] = field(default_factory=dict)
    """Busy share of each stage's slots, 0 to 1."""


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C while shards are at work."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        """Images that this run had committed."""


@dataclass(frozen=True)
class Summary:
    """What an output holds at the end of a run, and what the run did."""

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
    """Of them, before the first shard was started: compiling kernels, loading detectors."""
    labelled: bool = False
    """Whether the manifest names classes, so that the output can be scored against it."""
    utilisation: dict[str, float] = field(default_factory=dict)
    """Busy share of each stage's slots, 0 to 1, over this run."""
    rerun: str = "the same command"
    """The command that resumes the run, in words."""

    @property
    def images_failed(self) -> int:
        """Failed images in the output."""
        return sum(self.failed.values())

    @property
    def rate(self) -> float:
        """Images per second of this run, without the start."""
        working = self.seconds - self.start_seconds
        return (self.images - self.done_before) / working if working > 0 else 0.0

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
            "output": uris.redact_uri(self.output),
        }

    def format_lines(self) -> list[str]:
        """The lines that a person reads at the end."""
        failed = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in self.report.seconds.items())
        lines = [
            f"{self.images} images in {self.shards} shards, {self.images_failed} failed"
            + (f" ({failed})" if failed else "")
            + (f"; {self.done_before} were done before" if self.done_before else ""),
        ]
        if self.images > self.done_before:
            lines.append(
                f"{self.seconds:.1f} s, {self.start_seconds:.1f} of them to start; then "
                f"{self.rate:.1f} images/s; worker time: {stages}"
            )
            busy = ", ".join(f"{name} {share:.0%}" for name, share in self.utilisation.items())
            lines.append(f"slots in use: {busy}")
        lines.append(f"output: {uris.redact_uri(self.output)}")
        return lines


def complete_run(
    ready: RunOutput,
    options: RunOptions,
    do_work: Callable[[], WorkDone],
    *,
    is_labelled: bool = False,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> Summary:
    """Do the work that an output lacks, clean the output and write its summary.

    If the run ends early, the log says how to resume it.

    Args:
        ready: the output, opened.
        options: the run's options.
        do_work: commits the output's missing shards; called only if there are any.
        is_labelled: whether the manifest names classes.
        backoff: waits between attempts to end the run in a store that fails.

    Raises:
        TooManyFailedImages: after everything is committed, if more than the allowed fraction failed.
        ShardFailed: the store keeps failing when the run ends.
    """
    start = monotonic()
    try:
        done = do_work() if ready.has_work else WorkDone(ready)
        seconds = monotonic() - start
        summary = Summary(
            ready.uri,
            ready.rows,
            len(ready.shards),
            ready.rows_committed,
            report=done.report,
            seconds=seconds,
            start_seconds=0.0 if done.work_began is None else done.work_began - start,
            labelled=is_labelled,
            utilisation=done.utilisation,
            rerun=options.rerun,
        )
        summary = _finish(done.output, summary, backoff)
    except KeyboardInterrupt as interrupt:
        images = interrupt.images if isinstance(interrupt, RunInterrupted) else 0
        log.warning(
            "stopped: %d of %d images are committed in %s; %s does the rest",
            ready.rows_committed + images,
            ready.rows,
            uris.redact_uri(ready.uri),
            options.rerun,
        )
        raise
    except PipelineError as error:
        if options.overwrite and not isinstance(error, TakenOver):
            log.warning("to resume from what is committed: %s", options.rerun)
        raise
    _check_failed_fraction(summary, options)
    return summary


def _finish(output: RunOutput, summary: Summary, backoff: Backoff) -> Summary:
    """Count failed images, clean the output and put the summary, as patiently as shards are retried.

    Raises:
        ShardFailed: the store keeps failing.
    """
    attempt = 0
    while True:
        try:
            failed = output.failed_before + summary.report.failed
            complete = replace(summary, failed=failed)
            output.finish(complete.as_json())
        except StorageError as error:
            attempt += 1
            if attempt == ATTEMPTS:
                raise ShardFailed(
                    f"{error}; every image is committed, {summary.rerun} writes the summary"
                ) from error
            log.warning("cannot end the run yet: %s", error)
            sleep(backoff.wait(attempt))
        else:
            return complete


def _check_failed_fraction(summary: Summary, options: RunOptions) -> None:
    """Raise TooManyFailedImages, after logging the summary, if more than the allowed fraction failed."""
    if summary.images_failed <= options.max_failed_fraction * summary.images:
        return
    for line in summary.format_lines():
        log.info(line)
    common = ", ".join(f"{n} {reason}" for reason, n in summary.failed.most_common(3))
    raise TooManyFailedImages(
        f"{summary.images_failed} of {summary.images} images failed ({common}), more than the "
        f"allowed fraction of {options.max_failed_fraction:g}; "
        f"the output {uris.redact_uri(summary.output)} is complete"
    )
