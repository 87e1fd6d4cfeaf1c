"""The end of a run: summary.json in its output, a few lines for the terminal, the failed-image limit.

A start that finds nothing to do leaves the figures in summary.json to the start that did the work.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import Any

from pipeline import uris
from pipeline.errors import PipelineError, ShardFailed, StorageError, TooManyFailedImages
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.plan_errors import PlanError, compare_with_plan, format_plan_errors
from pipeline.runs.report import Report
from pipeline.runs.resume import TakenOver
from pipeline.runs.run_plan import read_plan
from pipeline.runs.run_status import read_summary

log = logging.getLogger(__name__)

_FIGURES = (
    *("images_done_before", "images_reused", "seconds", "start_seconds", "images_per_second"),
    *("stage_seconds", "cpu_seconds", "utilisation", "counts", "plan"),
)
"""Fields of summary.json that say what a start did, beside those that say what the output holds."""
_CONTENT = ("images", "shards", "failed")
"""Fields that differ if the output has changed since the start that wrote them."""


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
    cores: int = 0
    """Cores of the cluster at the end."""
    gpus: float = 0.0
    """GPUs of the cluster at the end."""
    gpus_per_detector: float = 0.0
    """GPUs of one detector; 0 computes on cores."""


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
    logs: tuple[str, ...] = ()
    """The log files below the output."""
    rerun: str = "the same command"
    """The command that resumes the run, in words."""
    plan_errors: Mapping[str, PlanError] = field(default_factory=dict)
    """How far plan.json was off, by figure; empty without a plan of this run."""

    @property
    def images_failed(self) -> int:
        """Failed images in the output."""
        return sum(self.failed.values())

    @property
    def images_reused(self) -> int:
        """Images whose row this run took over from the output of `--reuse`."""
        return self.report.counts["reused"]

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
            "images_reused": self.images_reused,
            "images_failed": self.images_failed,
            "failed": dict(self.failed),
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "start_seconds": round(self.start_seconds, 3),
            "images_per_second": round(self.rate, 3),
            "stage_seconds": {name: round(value, 3) for name, value in self.report.seconds.items()},
            "cpu_seconds": {
                name: round(value, 3) for name, value in self.report.cpu_seconds.items()
            },
            "utilisation": {name: round(value, 3) for name, value in self.utilisation.items()},
            "counts": dict(self.report.counts),
            "logs": list(self.logs),
            "output": uris.redact_uri(self.output),
            **self._list_plan_errors(),
        }

    def _list_plan_errors(self) -> dict[str, Any]:
        if not self.plan_errors:
            return {}
        return {"plan": {name: error.as_json() for name, error in self.plan_errors.items()}}

    def format_lines(self) -> list[str]:
        """The lines that a person reads at the end."""
        failed = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
        stages = ", ".join(f"{name} {value:.1f} s" for name, value in self.report.seconds.items())
        lines = [
            f"{self.images} images in {self.shards} shards, {self.images_failed} failed"
            + (f" ({failed})" if failed else "")
            + (f"; {self.done_before} were done before" if self.done_before else ""),
        ]
        if self.images_reused or self.report.counts["not_reused"]:
            changed = self.report.counts["not_reused"]
            lines.append(
                f"{self.images_reused} rows were taken over from --reuse"
                + (f"; {changed} more no longer held and were computed again" if changed else "")
            )
        if self.report.counts["proposals_scored"]:
            share = self.report.counts["proposals_scored"] / self.report.counts["proposals"]
            lines.append(f"--stop-after: {share:.0%} of the proposals were scored")
        if self.images > self.done_before:
            lines.append(
                f"{self.seconds:.1f} s, {self.start_seconds:.1f} of them to start; then "
                f"{self.rate:.1f} images/s; worker time: {stages}"
            )
            busy = ", ".join(f"{name} {share:.0%}" for name, share in self.utilisation.items())
            if busy:  # a short run may end before anything is measured
                lines.append(f"slots in use: {busy}")
        if self.plan_errors:
            lines.append(format_plan_errors(self.plan_errors))
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
    with ready.logs if ready.logs is not None and ready.has_work else nullcontext():
        return _complete_run(ready, options, do_work, is_labelled, backoff)


def _complete_run(
    ready: RunOutput,
    options: RunOptions,
    do_work: Callable[[], WorkDone],
    is_labelled: bool,
    backoff: Backoff,
) -> Summary:
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
            logs=() if ready.logs is None else tuple(ready.logs.list_names()),
            rerun=options.rerun,
        )
        summary = _finish(done, summary, backoff)
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
    if ready.logs is not None:
        ready.logs.add_lines(*summary.format_lines())
    return summary


def _finish(done: WorkDone, summary: Summary, backoff: Backoff) -> Summary:
    """Count failed images, clean the output and put the summary, as patiently as shards are retried.

    Raises:
        ShardFailed: the store keeps failing.
    """
    attempt = 0
    output = done.output
    while True:
        try:
            failed = output.failed_before + summary.report.failed
            complete = replace(summary, failed=failed, plan_errors=_find_plan_errors(done, summary))
            content = complete.as_json()
            output.finish(content if output.has_work else _keep_figures(output, content))
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


def _keep_figures(output: RunOutput, content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of summary.json with the figures of the start that did the work.

    They stay only if they belong to what the output holds: a start that was killed before its summary may
    have retried failed images since.
    """
    stored = read_summary(output.uri)
    if stored is None or any(stored.values.get(name) != content[name] for name in _CONTENT):
        return dict(content)
    return {**content, **{name: stored.values[name] for name in _FIGURES if name in stored.values}}


def _find_plan_errors(done: WorkDone, summary: Summary) -> dict[str, PlanError]:
    """What the run measured beside its plan, if it has one."""
    report, output = done.report, done.output
    images = report.images - report.counts["reused"]
    plan = read_plan(output.uri, output.record.fingerprint) if images else None
    if plan is None:
        return {}
    device_seconds = report.seconds.get("detect", 0.0) if done.gpus_per_detector else 0.0
    actual = {
        "core_hours": sum(report.cpu_seconds.values()) / 3600,
        "gpu_hours": device_seconds * done.gpus_per_detector / 3600,
        "wall_seconds": summary.seconds,
        "bytes_read": float(report.counts["bytes_read"]),
        "bytes_written": float(report.counts["bytes"]),
        "detector_seconds_per_image": device_seconds / images,
    }
    return compare_with_plan(plan, actual, images, done.cores, done.gpus)


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
