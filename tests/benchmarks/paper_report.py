"""The tables as JSON, Markdown and one figure each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.paper_rows import TITLES, Row

_SYSTEMS = {"R-CNN": "rcnn", "SPPnet": "sppnet", "Fast R-CNN": "fast_rcnn"}


def write_report(
    folder: Path, tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]
) -> None:
    """Write `paper.json`, `paper.md` and `figures/<table>.png` into a folder.

    Args:
        folder: of the run.
        tables: rows by the name of their table.
        facts: what the tables were measured on.
    """
    values = {"facts": dict(facts), "systems": build_systems(tables)}
    values["tables"] = {name: [row.as_json() for row in rows] for name, rows in tables.items()}
    (folder / "paper.json").write_text(json.dumps(values, indent=2) + "\n")
    (folder / "paper.md").write_text(format_markdown(tables, facts))
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for name, rows in tables.items():
        draw_figure(figures / f"{name}.png", name, rows)


def build_systems(tables: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """The three systems: mAP, training seconds, stages, stored bytes, seconds per image."""
    systems: dict[str, dict[str, Any]] = {}
    for row in tables.get("speed", ()):
        if row.name in _SYSTEMS:
            systems[_SYSTEMS[row.name]] = {
                "map": None,
                "train_seconds": row.values["training, s"],
                "stages": row.values["stages"],
                "feature_bytes": round(row.values["stored features, MB"] * 1e6),
                "seconds_per_image": row.values["detection, s per image"],
            }
    for row in tables.get("quality", ()):
        systems.setdefault(_SYSTEMS[row.name], {})["map"] = row.map50
    return systems


def format_markdown(tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    """All tables with the paper's figures beside ours, then the commands."""
    lines = ["# The paper's claims", "", *(f"- {name}: {value}" for name, value in facts.items())]
    for name, rows in tables.items():
        lines += ["", f"## {TITLES[name]}", "", *format_table(rows)]
    lines += ["", "## Commands", "", "```sh"]
    commands = dict.fromkeys(c for rows in tables.values() for row in rows for c in row.commands)
    return "\n".join([*lines, *commands, "```"]) + "\n"


def format_table(rows: Sequence[Row]) -> list[str]:
    """The lines of one table; only columns that a row fills."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    has_map = any(row.map50 is not None for row in rows)
    headers = [
        "",
        *(["mAP", "difference", "95 % interval"] if has_map else []),
        *names,
        "the paper",
    ]
    lines = [_join(headers), _join(["---"] * len(headers))]
    for row in rows:
        cells = [row.name]
        if has_map:
            cells.append("" if row.map50 is None else f"{row.map50:.3f}")
            cells.append("" if row.difference is None else f"{row.difference:+.3f}")
            interval = row.interval
            cells.append("" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}")
        cells += [f"{row.values[name]:.4g}" if name in row.values else "" for name in names]
        lines.append(_join([*cells, row.paper]))
    return lines


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def draw_figure(path: Path, name: str, rows: Sequence[Row]) -> None:
    """Draw one table as bars: mAP with the interval of the difference, or else its first figure."""
    from matplotlib.figure import Figure

    has_map = any(row.map50 is not None for row in rows)
    shown = [row for row in rows if has_map == (row.map50 is not None)]
    label = "mAP at IoU 0.5, 11 points" if has_map else _choose_quantity(rows)
    heights = [row.map50 if has_map else row.values.get(label, 0.0) for row in shown]
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh([row.name for row in shown], heights, color="#4878a8")
    for position, row in enumerate(shown):
        if row.interval is not None and row.map50 is not None and row.difference is not None:
            first = row.map50 - row.difference
            low, high = (first + end for end in row.interval)
            axes.plot([low, high], [position, position], color="black", linewidth=2)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.set_title(TITLES[name])
    figure.savefig(path, dpi=100)


def _choose_quantity(rows: Sequence[Row]) -> str:
    """The figure that a table without mAP shows: seconds per image or step, if it has them."""
    names = [name for row in rows for name in row.values]
    return next((name for name in names if "s per" in name), names[0])
