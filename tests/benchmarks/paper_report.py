"""The tables as JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.paper_figures import draw_figure
from tests.benchmarks.paper_rows import TITLES, Row

_SYSTEMS = {"R-CNN": "rcnn", "SPPnet": "sppnet", "Fast R-CNN": "fast_rcnn"}
_NOTE = (
    "mAP at IoU 0.5, 11 points. Differences are from the first row of a table. The 95 % interval is that of "
    "the difference, in the first row that of the mAP itself, from a bootstrap over the test images."
)


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
                "train_seconds": row.figures["training, s"],
                "stages": row.figures["stages"],
                "feature_bytes": round(row.figures["stored features, MB"] * 1e6),
                "seconds_per_image": row.figures["detection, s per image"],
            }
    for row in tables.get("quality", ()):
        if row.name in _SYSTEMS:
            systems.setdefault(_SYSTEMS[row.name], {})["map"] = row.map50
    return systems


def format_markdown(tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    """All tables with the paper's figures beside ours, each with its commands."""
    lines = ["# The paper's claims", "", *(f"- {name}: {value}" for name, value in facts.items())]
    lines += ["", _NOTE]
    for name, rows in tables.items():
        lines += ["", f"## {TITLES[name]}", "", *format_table(rows)]
        lines += ["", f"![{TITLES[name]}](figures/{name}.png)"]
        commands = dict.fromkeys(command for row in rows for command in row.commands)
        lines += ["", "```sh", *commands, "```"]
    return "\n".join(lines) + "\n"


def format_table(rows: Sequence[Row]) -> list[str]:
    """The lines of one table; only columns that a row fills."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    has_map = any(row.map50 is not None for row in rows)
    headers = [
        "",
        *(["mAP", "difference", "95 % interval", "seeds"] if has_map else []),
        *names,
        "the paper",
    ]
    lines = [_join(headers), _join(["---"] * len(headers))]
    for row in rows:
        cells = [row.name]
        if has_map:
            cells += _format_score(row)
        cells += [format_number(row.figures[name]) if name in row.figures else "" for name in names]
        lines.append(_join([*cells, row.paper]))
    return lines


def _format_score(row: Row) -> list[str]:
    """mAP, difference, interval and number of seeds."""
    form = "{:.3f}" if row.difference is None else "{:+.3f}"
    return [
        "" if row.map50 is None else f"{row.map50:.3f}",
        "" if row.difference is None else f"{row.difference:+.3f}",
        "" if row.interval is None else " to ".join(map(form.format, row.interval)),
        str(row.seeds),
    ]


def format_number(value: float) -> str:
    """Three significant digits, or all digits before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
