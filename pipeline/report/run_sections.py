"""The sections about images and runs: images to look at, failures, times, provenance."""

from __future__ import annotations

from pipeline.report.bars import Bar, draw_bars
from pipeline.report.cells import Cell
from pipeline.report.context import ReportContext
from pipeline.report.views import (
    Chart,
    Fact,
    Row,
    Section,
    Strip,
    Table,
    build_strip,
    list_columns,
)

_SHOWN = 6


def build_images(context: ReportContext) -> Section:
    """The worst images and a sample of all, and the failed ones by reason."""
    strips: list[Strip] = []
    for key in ("worst", "false", "missed", "failed"):
        gallery = context.galleries.get(key)
        if gallery is not None:
            title = gallery.title[0].upper() + gallery.title[1:]
            strips.append(build_strip(gallery, _SHOWN, title))
    if not strips and "images" in context.galleries:
        strips.append(build_strip(context.galleries["images"], 2 * _SHOWN, "Images"))
    reasons = tuple(
        Row(reason, (context.links.count(f"failed-{index}"),))
        for index, reason in enumerate(context.plan.failure_reasons)
    )
    tables = (Table("Failed images by reason", list_columns("stage: error", "images"), reasons),)
    return Section(
        "images",
        "Images",
        "Images to look at",
        tables=tables if reasons else (),
        strips=tuple(strips),
    )


def build_times(context: ReportContext) -> Section:
    """What the runs took."""
    times = context.provenance.times
    rows = tuple(
        Row(
            time.job,
            (
                Cell(f"{time.images:,}", time.images),
                Cell(f"{time.seconds:,.1f} s", time.seconds),
                Cell(f"{time.start_seconds:,.1f} s", time.start_seconds),
                Cell(f"{time.images_per_second:,.1f}", time.images_per_second),
                Cell(f"{sum(time.stage_seconds.values()):,.1f} s"),
            ),
        )
        for time in times
    )
    columns = list_columns(
        "run",
        "images",
        ("wall time", "Of the last run, which may have continued an earlier one"),
        ("to start", "Before the first shard: compiling kernels, loading detectors"),
        ("images/s", "After the start"),
        ("worker time", "Seconds of all workers together"),
    )
    charts = tuple(
        Chart(
            f"Worker time of {time.job}",
            draw_bars(
                f"Worker time of {time.job}",
                [Bar(stage, s, f"{s:,.1f} s") for stage, s in time.stage_seconds.items()],
            ),
            "Slots in use: "
            + ", ".join(f"{n} {share:.0%}" for n, share in time.utilisation.items()),
        )
        for time in times
        if time.stage_seconds
    )
    return Section(
        "time",
        "Time",
        "Time per stage",
        tables=(Table("Runs", columns, rows, width="wide"),) if rows else (),
        charts=charts,
    )


def build_provenance(context: ReportContext) -> Section:
    """Inputs, settings, versions, commands."""
    provenance = context.provenance
    facts = [Fact(name, value) for name, value in provenance.facts.items()]
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    if versions:
        facts.append(Fact("versions", versions))
    facts += [Fact("command", command, is_code=True) for command in provenance.commands]
    return Section("provenance", "Provenance", "Where these numbers come from", facts=tuple(facts))
