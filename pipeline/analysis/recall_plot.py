"""The plot of `analyze proposals`: recall against the number of boxes, and against IoU."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pipeline.analysis.overlap import THRESHOLDS
from pipeline.analysis.recall import ProposalRecall

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_recall_plot(recall: ProposalRecall) -> bytes:
    """Draw a PNG of two plots; the left one ends at the mean number of boxes per image."""
    # Imported here because matplotlib takes half a second, and only this function needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _plot_against_boxes(left, recall)
    _plot_against_iou(right, recall)
    figure.suptitle(
        f"{recall.objects} objects in {recall.images} images, "
        f"{recall.boxes_mean or 0:.0f} boxes per image"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _plot_against_boxes(axes: Axes, recall: ProposalRecall) -> None:
    mean = recall.boxes_mean or 0.0
    points = [
        (point, mabo)
        for point, mabo in zip(recall.curve, recall.mabo_curve, strict=True)
        if point.boxes is None or point.boxes < mean
    ]
    counts = [point.boxes or max(mean, 1.0) for point, _ in points]
    for name, values in {
        "recall at IoU 0.5": [point.recall50 for point, _ in points],
        "recall at IoU 0.7": [point.recall70 for point, _ in points],
        "average recall, IoU 0.50:0.95": [point.average_recall for point, _ in points],
        "MABO": [mabo for _, mabo in points],
    }.items():
        axes.plot(
            counts, [float("nan") if v is None else v for v in values], "o-", ms=3, label=name
        )
    axes.set(xscale="log", xlabel="boxes per image", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _plot_against_iou(axes: Axes, recall: ProposalRecall) -> None:
    for point in recall.curve:
        if point.boxes in (100, 500, 1000, 2000, None) and point.by_threshold:
            name = "all boxes" if point.boxes is None else f"{point.boxes} boxes"
            axes.plot(THRESHOLDS, point.by_threshold, "o-", ms=3, label=name)
    axes.set(xlabel="IoU", ylabel="recall", ylim=(0, 1))
    axes.grid(alpha=0.3)
    if recall.objects:
        axes.legend(fontsize=8)
