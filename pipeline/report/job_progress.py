"""The progress of the runs that a report is about, as their logs have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.progress_samples import StartProgress, read_progress

BINS = 48
"""Spans of time whose mean is one point of a curve."""


@dataclass(frozen=True)
class JobProgress:
    """Throughput of one job over the time that it worked, all its starts one after the other."""

    job: str
    starts: int
    seconds: float
    """Of all starts together; the time between them is left out."""
    times: NDArray[np.float64]
    """Middle of each span, in seconds `(B,)`."""
    images_per_second: NDArray[np.float64]
    """Mean of each span `(B,)`."""
    use: Mapping[str, NDArray[np.float64]]
    """Mean busy share of each stage's slots, 0 to 1, of each span `(B,)`."""


def read_job_progress(job: str, output: str) -> JobProgress | None:
    """Read the progress of a job from the logs in its output; None if there is none that can be read."""
    try:
        starts = read_progress(output)
    except PipelineError:  # a report does without
        return None
    return summarize_progress(job, starts) if starts else None


def summarize_progress(job: str, starts: list[StartProgress]) -> JobProgress | None:
    """The means over equal spans of time; None if no time passed.

    Args:
        job: the name of the job.
        starts: in their order.
    """
    times, images = [0.0], [0.0]
    names = dict.fromkeys(name for start in starts for line in start.lines for name in line.use)
    busy = {name: [0.0] for name in names}  # share of the slots times seconds, summed
    for start in starts:
        began, images_before = times[-1], images[-1]
        for line in start.lines:
            seconds = began + line.elapsed - times[-1]
            for name, sums in busy.items():
                sums.append(sums[-1] + seconds * line.use.get(name, 0.0))
            times.append(began + line.elapsed)
            images.append(max(images[-1], images_before + line.images))
    if times[-1] <= 0:
        return None
    edges = np.linspace(0.0, times[-1], min(BINS, len(times)) + 1)
    width = edges[1] - edges[0]

    def average(sums: list[float]) -> NDArray[np.float64]:
        means: NDArray[np.float64] = np.diff(np.interp(edges, times, sums)) / width
        return means

    return JobProgress(
        job,
        len(starts),
        times[-1],
        (edges[:-1] + edges[1:]) / 2,
        average(images),
        {name: average(sums) for name, sums in busy.items()},
    )
