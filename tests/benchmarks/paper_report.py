"""The tables as JSON and Markdown, joined with those that an earlier start of the command measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import storage
from tests.benchmarks.paper_figures import draw_figure
from tests.benchmarks.paper_rows import (
    DETECTION,
    FINER,
    NOTES,
    STORED,
    TITLES,
    TRAINING,
    Estimate,
    Row,
    format_number,
)
from tests.benchmarks.paper_steps import read_json

LASTING = ("trained on", "tested on", "proposals", "recipe", "rule of detection")
"""Facts that all tables of a folder share; the others are listed for every start that had others."""
_SYSTEMS = {"R-CNN": "rcnn", "SPPnet": "sppnet", "Fast R-CNN": "fast_rcnn"}
_NOTE = (
    "mAP at IoU 0.5, 11 points. Differences are from the first row of a table, or from the row that the "
    "column `compared with` names, seed by seed; values and differences are means over the seeds of a row. "
    "The 95 % interval is that of the difference, in a row without one that of the mAP itself, from a "
    "bootstrap over the test images: the mean of its ends over seeds. It leaves out the variation between "
    "seeds, whose differences (in a row without one, mAP) are in the column `by seed`. Area mAP is the area "
    "below all points of the precision-recall curve at IoU 0.5, COCO AP the mean over IoU 0.5 to 0.95; both "
    "move less with single detections than 11 points, and have their difference and its interval in the "
    "same cell. Times are those of the first seed."
)


class Report:
    """`paper.json`, `paper.md` and `figures/<table>.png` in a folder."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Begin with the tables that the folder has.

        Args:
            folder: of the run.
            facts: what the tables of this start are measured on.

        Raises:
            SystemExit: the folder's tables were measured on something else.
        """
        self._folder = folder
        stored = _read_stored(folder / "paper.json")
        self.tables = {
            name: [Row.from_json(row) for row in rows]
            for name, rows in stored.get("tables", {}).items()
        }
        self.facts = join_facts(stored.get("facts", {}), facts, folder)

    def add(self, name: str, rows: Sequence[Row]) -> None:
        """Put a table in its place, draw its figure and write the report."""
        measured = {**self.tables, name: list(rows)}
        self.tables = {title: measured[title] for title in TITLES if title in measured}
        facts = {**self.facts, "networks compute in": list_precisions(self._folder)}
        values = {
            "facts": facts,
            "systems": build_systems(self.tables),
            "tables": {name: [row.as_json() for row in rows] for name, rows in self.tables.items()},
        }
        figures = self._folder / "figures"
        figures.mkdir(exist_ok=True)
        draw_figure(figures / f"{name}.png", name, rows)
        markdown = format_markdown(self.tables, facts)
        storage.put(
            str(self._folder / "paper.json"), (json.dumps(values, indent=2) + "\n").encode()
        )
        storage.put(str(self._folder / "paper.md"), markdown.encode())


def list_precisions(folder: Path) -> list[str]:
    """The precisions that the records of all trainings and detections in a folder name."""
    records = [read_json(path) for path in folder.glob("*/*/run.json")]
    found = {record.get("resolved", {}).get("precision") for record in records}
    return sorted(found - {None})


def _read_stored(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text())
        return values if isinstance(values, dict) else {}
    except ValueError as error:
        print(f"{path} is damaged ({error}): remove it to write it again", file=sys.stderr)
        sys.exit(2)


def join_facts(stored: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The facts of the stored tables and of those to come; a fact that differs becomes a list.

    Raises:
        SystemExit: one of `LASTING` differs.
    """
    joined: dict[str, Any] = {}
    for name, value in facts.items():
        earlier = stored.get(name, value)
        if name in LASTING and stored and stored.get(name) != value:
            there = stored.get(name, "not stated")
            print(
                f"{folder} has tables of other settings ({name}: {there} there, {value} now): "
                "choose another --output",
                file=sys.stderr,
            )
            sys.exit(2)
        values = list(
            dict.fromkeys([*(earlier if isinstance(earlier, list) else [earlier]), value])
        )
        joined[name] = values[0] if len(values) == 1 else values
    return joined


def build_systems(tables: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """The three systems: mAP, training seconds, stages, stored bytes, worker seconds per image."""
    systems: dict[str, dict[str, Any]] = {}
    for row in tables.get("speed", ()):
        if row.name in _SYSTEMS:
            systems[_SYSTEMS[row.name]] = {
                "map": None,
                "train_seconds": row.figures[TRAINING],
                "stages": row.figures["stages"],
                "feature_bytes": round(row.figures[STORED] * 1e6),
                "seconds_per_image": row.figures.get(DETECTION),
            }
    for row in tables.get("quality", ()):
        if row.name in _SYSTEMS:
            systems.setdefault(_SYSTEMS[row.name], {})["map"] = row.map50
    return systems


def format_markdown(tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Any]) -> str:
    """All tables with the paper's figures beside ours, each with its commands."""
    lines = ["# The paper's claims", ""]
    for name, value in facts.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"- {name}: {fact}" for fact in values]
    lines += ["", _NOTE]
    for name, rows in tables.items():
        lines += ["", f"## {TITLES[name]}", "", *format_table(rows)]
        notes = [f"{row.name}: {row.note}" for row in rows if row.note]
        notes = [NOTES[name], *notes] if name in NOTES else notes
        for note in notes:
            lines += ["", note]
        lines += ["", f"![{TITLES[name]}](figures/{name}.png)"]
        commands = dict.fromkeys(command for row in rows for command in row.commands)
        lines += ["", "```sh", *commands, "```"]
    return "\n".join(lines) + "\n"


def format_table(rows: Sequence[Row]) -> list[str]:
    """The lines of one table; only columns that a row fills."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    has_map = any(row.map50 is not None for row in rows)
    has_seeds = has_map or any(row.seeds > 1 for row in rows)
    has_several = any(len(row.map50_by_seed) > 1 for row in rows)
    scores = [score for score in FINER if any(score in row.finer for row in rows)]
    others = [row.name for row in rows if row.compared_with not in ("", rows[0].name)]
    headers = [
        "",
        *(["mAP", "difference", "95 % interval"] if has_map else []),
        *(FINER[score] for score in scores),
        *(["seeds"] if has_seeds else []),
        *(["by seed"] if has_several else []),
        *(["compared with"] if others else []),
        *names,
        "the paper",
    ]
    lines = [_join(headers), _join(["---"] * len(headers))]
    for row in rows:
        cells = [row.name]
        if has_map:
            cells += _format_score(row)
        cells += [_format_estimate(row.finer.get(score)) for score in scores]
        if has_seeds:
            cells.append(str(row.seeds))
        if has_several:
            cells.append(_format_seeds(row))
        if others:
            cells.append(row.compared_with)
        cells += [format_number(row.figures[name]) if name in row.figures else "" for name in names]
        lines.append(_join([*cells, row.paper]))
    return lines


def _format_score(row: Row) -> list[str]:
    """mAP, difference and interval."""
    form = "{:.3f}" if row.difference is None else "{:+.3f}"
    return [
        "" if row.map50 is None else f"{row.map50:.3f}",
        "" if row.difference is None else f"{row.difference:+.3f}",
        "" if row.interval is None else " to ".join(map(form.format, row.interval)),
    ]


def _format_seeds(row: Row) -> str:
    """The difference of each seed, or its mAP in a row without differences."""
    if row.differences_by_seed:
        return " ".join(f"{difference:+.3f}" for difference in row.differences_by_seed)
    return " ".join(f"{map50:.3f}" for map50 in row.map50_by_seed)


def _format_estimate(estimate: Estimate | None) -> str:
    """A score, and its difference with the interval."""
    if estimate is None:
        return ""
    value = f"{estimate.value:.3f}"
    if estimate.difference is None:
        return value
    return f"{value}, {estimate.difference:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
