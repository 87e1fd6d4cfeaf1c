"""One figure per table: bars of mAP or seconds, the layers' shares of figure 2, curves of figure 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.detector.timing import LAYERS
from tests.benchmarks.paper_rows import DETECTION, IMAGE, TITLES, TRAINING, Row, format_number

BLUE, ORANGE = "#4878a8", "#d0803a"


def draw_figure(path: Path, name: str, rows: Sequence[Row]) -> None:
    """Draw one table.

    Args:
        path: of the PNG.
        name: of the table.
        rows: of the table.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.4 + 0.5 * len(rows)), layout="constrained")
    if name == "speed":
        figure.set_figwidth(12)
        left, right = figure.subplots(1, 2)
        _draw_bars(left, rows, TRAINING)
        _draw_bars(right, rows, DETECTION)
        figure.suptitle(TITLES[name])
    elif name == "svd":
        left, right = figure.subplots(1, 2, width_ratios=(1, 2))
        figure.set_size_inches(11, 3.2)
        _draw_scores(left, rows)
        _draw_shares(right, rows)
        figure.suptitle(TITLES[name])
    elif name == "proposals":
        figure.set_size_inches(8, 4.5)
        _draw_curves(figure.subplots(), rows)
        figure.suptitle(TITLES[name])
    else:
        axes = figure.subplots()
        if any(row.map50 is not None for row in rows):
            _draw_scores(axes, rows)
        else:
            _draw_bars(axes, rows, next(iter(rows[0].figures)))
        axes.set_title(TITLES[name])
    figure.savefig(path, dpi=100)


def _draw_scores(axes: Any, rows: Sequence[Row]) -> None:
    """mAP with its 95 % interval, or that of the difference around the mAP that it is from plus it."""
    shown = [row for row in rows if row.map50 is not None]
    scores = [row.map50 or 0.0 for row in shown]
    axes.barh(range(len(shown)), scores, color=BLUE)
    for position, (row, score) in enumerate(zip(shown, scores, strict=True)):
        axes.text(0.01, position, f"{score:.3f}", color="white", va="center")
        if row.interval is not None:
            base = 0.0 if row.difference is None else score - row.difference
            ends = [base + end for end in row.interval]
            axes.plot(ends, [position, position], color="black", linewidth=2)
    _name_rows(axes, shown)
    axes.set_xlim(0, 1)
    axes.set_xlabel("mAP at IoU 0.5, 95 % interval")


def _draw_bars(axes: Any, rows: Sequence[Row], label: str) -> None:
    """One figure of each row that has it, from 0."""
    shown = [row for row in rows if label in row.figures]
    if not shown:  # no start measured it
        axes.set_axis_off()
        return
    values = [row.figures[label] for row in shown]
    bars = axes.barh(range(len(shown)), values, color=BLUE)
    axes.bar_label(bars, [f" {format_number(value)}" for value in values])
    axes.set_xlim(0, 1.3 * max(values))
    _name_rows(axes, shown)
    axes.set_xlabel(label)


def _draw_shares(axes: Any, rows: Sequence[Row]) -> None:
    """Seconds of an image, layer upon layer, with their shares."""
    colours = ("#4878a8", "#7fb0c8", "#d0803a", "#e8b27c", "#8a8f45", "#b8b8b8")
    starts = [0.0] * len(rows)
    for layer, colour in zip(LAYERS, colours, strict=True):
        shares = [row.figures[f"{layer}, %"] for row in rows]
        seconds = [
            row.figures[IMAGE] * share / 100 for row, share in zip(rows, shares, strict=True)
        ]
        bars = axes.barh(range(len(rows)), seconds, left=starts, color=colour, label=layer)
        labels = [f"{share:.0f} %" if share >= 4 else "" for share in shares]
        axes.bar_label(bars, labels, label_type="center", fontsize=8)
        starts = [start + value for start, value in zip(starts, seconds, strict=True)]
    axes.set_yticks(range(len(rows)), ["" for _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds of an image")
    axes.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25))


def _draw_curves(axes: Any, rows: Sequence[Row]) -> None:
    """mAP and average recall by the number of proposals."""
    counts = [int(row.name.split()[0]) for row in rows]
    axes.plot(counts, [row.map50 for row in rows], color=BLUE, marker="o", label="mAP")
    recalls = [row.figures["average recall"] for row in rows]
    axes.plot(counts, recalls, color=ORANGE, marker="s", label="average recall")
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(0, 1)
    axes.set_xlabel("best proposals per image, in training and testing")
    axes.legend()


def _name_rows(axes: Any, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
