"""The section about throughput over time: images per second, and how busy each stage was."""

from __future__ import annotations

import math

from pipeline.report.charts import Axis, Curve, draw_curves
from pipeline.report.context import ReportContext
from pipeline.report.job_progress import JobProgress
from pipeline.report.views import Chart, Section

_UNITS = ((10_800.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""Seconds from which on an axis counts in a unit, the seconds of the unit, and its name."""


def build_throughput(context: ReportContext) -> Section:
    """Charts of each run whose logs have samples of its progress."""
    charts = [chart for progress in context.progress for chart in _draw_job(progress)]
    return Section(
        "throughput",
        "Throughput",
        "Throughput over time",
        "Means over equal spans of the time that a run worked; a shard counts when it is committed.",
        charts=tuple(charts),
    )


def _draw_job(progress: JobProgress) -> tuple[Chart, Chart]:
    unit_seconds, unit = next((s, name) for least, s, name in _UNITS if progress.seconds >= least)
    times = (progress.times / unit_seconds).tolist()
    time_axis = _make_axis(unit, progress.seconds / unit_seconds)
    rates = progress.images_per_second.tolist()
    note = f"{progress.starts} starts, one after the other" if progress.starts > 1 else ""
    rate_title, use_title = (
        f"Images per second of {progress.job}",
        f"Slots in use of {progress.job}",
    )
    return (
        Chart(
            rate_title,
            draw_curves(
                rate_title,
                [Curve("images per second", times, rates)],
                time_axis,
                _make_axis("images/s", max(rates), ends_at_tick=True),
            ),
            note,
        ),
        Chart(
            use_title,
            draw_curves(
                use_title,
                [
                    Curve(name, times, shares.tolist(), colour=colour)
                    for colour, (name, shares) in enumerate(progress.use.items(), start=1)
                ],
                time_axis,
                Axis("share of slots"),
            ),
            note,
        ),
    )


def _make_axis(title: str, highest: float, *, ends_at_tick: bool = False) -> Axis:
    """An axis from 0 whose ticks are round numbers."""
    if highest <= 0:
        return Axis(title)
    step = 10.0 ** math.floor(math.log10(highest))
    step *= next(factor for factor in (0.2, 0.5, 1.0, 2.0) if highest / (step * factor) <= 6)
    count = math.ceil(highest / step - 1e-9) if ends_at_tick else math.floor(highest / step + 1e-9)
    ticks = [step * index for index in range(count + 1)]
    return Axis(title, 0.0, max(highest, ticks[-1]), ticks)
