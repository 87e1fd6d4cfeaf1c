"""The section of the index about precision, recall and F1 over the score, with charts for classes too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.cells import read_estimate
from pipeline.report.charts import Axis, Curve, Mark, draw_curves
from pipeline.report.context import ReportContext
from pipeline.report.views import Chart, Section

_MOST_CURVES = 30
_FIGURES_OF_SCORE = (("f1", "F1"), ("precision", "precision"), ("recall", "recall"))


def build_curves(context: ReportContext) -> Section:
    """Precision against recall, and F1 over the score."""
    charts = draw_score_curves(context, None)
    return Section(
        "curves",
        "Curves",
        "Precision, recall and score",
        "Thin lines are single classes; point at one for its name. The circle marks the best score for F1."
        if charts
        else "",
        charts=charts,
    )


def draw_score_curves(context: ReportContext, label: str | None) -> tuple[Chart, ...]:
    """The two charts of one class, or of all classes with thin lines for single ones."""
    per_class = context.find_by_label("operating_points", "per_class")
    own = context.get("operating_points", "overall") if label is None else per_class.get(label)
    if own is None or not own.get("curve", {}).get("score"):
        return ()
    others = [] if label else list(per_class.items())[:_MOST_CURVES]
    recall_curves, score_curves = [], []
    for name, points in others:
        curve = points["curve"]
        recall_curves.append(Curve(name, curve["recall"], curve["precision"], 1, "faint"))
        score_curves.append(Curve(name, curve["score"], curve["f1"], 1, "faint"))
    curve, name = own["curve"], label or "all classes"
    recall_curves.append(Curve(name, curve["recall"], curve["precision"], 1))
    for index, (figure, title) in enumerate(_FIGURES_OF_SCORE, 1):
        style = "" if figure == "f1" else "dashed"
        score_curves.append(Curve(title, curve["score"], curve[figure], index, style))
    best = own.get("best")
    marks = ([], []) if best is None else _mark_best(best)
    return (
        Chart(
            "Precision against recall",
            draw_curves(
                "Precision against recall",
                recall_curves,
                Axis("recall"),
                Axis("precision"),
                marks[0],
            ),
        ),
        Chart(
            "F1 over the score",
            draw_curves(
                "F1 over the score", score_curves, Axis("lowest score"), Axis("rate"), marks[1]
            ),
        ),
    )


def _mark_best(best: Mapping[str, Any]) -> tuple[list[Mark], list[Mark]]:
    precision, recall, f1 = (
        read_estimate(best[name])[0] or 0.0 for name in ("precision", "recall", "f1")
    )
    text = f"score {best['score']:.3f}: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}"
    return [Mark(recall, precision, text)], [Mark(best["score"], f1, text)]
