"""Draws recall@0.5 and MABO of the first 500 boxes against CPU time, from one comparison with peers.

python -m tests.benchmarks.selective_search --images DIR --annotations DIR --list FILE --json peers.json \\
    --limit 40 --slow-limit 40 --tables-only
python -m tests.benchmarks.proposal_figure --json peers.json --svg docs/figures/proposals.svg

An arrow leads from a strategy in the authors' order to the same one in the learned order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tests.benchmarks.proposal_methods import LEARNED_SUFFIX

Row = dict[str, Any]
Rows = dict[str, Row]
_MEASURES = {"recall_50_of_500": "recall@0.5", "mabo_of_500": "MABO"}
_OWN, _LEARNED, _PEER = "#1f5fa8", "#c4500a", "#6b6b6b"


def main() -> None:
    """Read the JSON and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="of the comparison with peers")
    parser.add_argument("--svg", type=Path, required=True, help="the figure to write")
    options = parser.parse_args()
    result = json.loads(options.json.read_text())
    rows = {row["method"]: row for row in result["first_images"]}
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    draw_figure(rows, result["slow_images"], options.svg)


def draw_figure(rows: Rows, images: int, target: Path) -> None:
    """Draw two panels and a key as SVG, the same bytes for the same rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = [name for name in rows if not name.endswith(LEARNED_SUFFIX)]
    style = {"svg.hashsalt": "proposals", "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(style):
        figure = Figure(figsize=(11, 5), layout="constrained")
        *panels, key = figure.subplots(1, 3, width_ratios=[4, 4, 2.2])
        for panel, (measure, title) in zip(panels, _MEASURES.items(), strict=True):
            for number, name in enumerate(names, start=1):
                _draw_method(
                    panel, str(number), rows[name], rows.get(name + LEARNED_SUFFIX), measure
                )
            panel.set_xscale("log")
            panel.set_xlabel("CPU ms per image (median)")
            panel.set_title(f"{title} of the first 500 boxes", fontsize=10)
            panel.grid(visible=True, color="#e6e6e6", linewidth=0.6)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
        for label, colour in (
            ("this project, the authors' order", _OWN),
            ("this project, the learned order", _LEARNED),
            ("other packages", _PEER),
        ):
            panels[0].scatter([], [], color=colour, label=label)
        key.axis("off")
        key.legend(*panels[0].get_legend_handles_labels(), loc="lower left", frameon=False)
        lines = [f"{number}  {name}" for number, name in enumerate(names, start=1)]
        key.text(0, 1, "\n".join(lines), va="top", linespacing=1.7, fontsize=8)
        figure.suptitle(f"{images} images", fontsize=9)
        figure.savefig(target, format="svg", metadata={"Date": None})


def _draw_method(panel: Any, number: str, row: Row, learned: Row | None, measure: str) -> None:
    own = row["method"].startswith("ours, ")
    start = 1e3 * row["cpu_seconds"], row[measure]
    panel.scatter(*start, color=_OWN if own else _PEER, marker="o" if own else "s", s=26, zorder=3)
    if learned is None:
        _write_number(panel, number, start, below=True)
        return
    end = 1e3 * learned["cpu_seconds"], learned[measure]
    panel.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "#9a9a9a"})
    panel.scatter(*end, color=_LEARNED, s=26, zorder=3)
    _write_number(panel, number, end, below=False)


def _write_number(panel: Any, number: str, point: tuple[float, float], *, below: bool) -> None:
    # To one side or the other, so that the numbers of strategies of like cost do not cover each other.
    offset = (8 if int(number) % 2 else -8, -12 if below else 5)
    panel.annotate(
        number, point, xytext=offset, textcoords="offset points", ha="center", fontsize=8
    )


if __name__ == "__main__":
    main()
