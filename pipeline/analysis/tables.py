"""The metrics as tables for a terminal."""

from __future__ import annotations

from rich.table import Column, Table
from rich.text import Text

from pipeline.analysis.comparison import Comparison, Difference
from pipeline.analysis.evaluation import Metrics
from pipeline.analysis.overlap import GroupRecall, RecallPoint
from pipeline.analysis.recall import ProposalRecall


def per_class_table(metrics: Metrics) -> Table:
    """One line per class and one of means."""
    table = Table("class", *_right("objects", "detections", "AP 11-point", "AP area", "COCO AP"))
    for row in metrics.per_class:
        table.add_row(
            Text(row.label),  # a Text, because a label may hold what rich takes for markup
            str(row.objects),
            str(row.detections),
            *(_share(value) for value in (row.ap11, row.ap_area, row.coco_ap)),
        )
    table.add_section()
    table.add_row(
        "mean",
        str(metrics.objects),
        str(metrics.detections),
        *(_share(v) for v in (metrics.voc07_map50, metrics.voc_map50, metrics.coco_ap)),
    )
    return table


def summary_table(metrics: Metrics) -> Table:
    """The means, the counts and what failed."""
    table = Table(box=None, show_header=False)
    table.add_row("VOC 2007 mAP, IoU 0.5", _share(metrics.voc07_map50))
    table.add_row("VOC mAP (area), IoU 0.5", _share(metrics.voc_map50))
    table.add_row("COCO AP, IoU 0.50:0.95", _share(metrics.coco_ap))
    table.add_row("COCO AP, IoU 0.50 / 0.75", _shares(metrics.coco_ap50, metrics.coco_ap75))
    table.add_row(
        "COCO AP, small / medium / large",
        _shares(metrics.coco_ap_small, metrics.coco_ap_medium, metrics.coco_ap_large),
    )
    table.add_row("images", str(metrics.images))
    table.add_row("detections", str(metrics.detections))
    _add_failures(table, metrics.failed, metrics.failed_by_reason)
    return table


def comparison_table(comparison: Comparison) -> Table:
    """The means of both runs by both rules, then each class by VOC2007's."""
    percent = f"{100 * comparison.confidence:.0f} % interval"
    table = Table("", *_right("objects", "first", "second", "difference", percent))
    objects = sum(row.objects for row in comparison.per_class)
    table.add_row("mAP 11-point", str(objects), *_compared(comparison.voc07_map50))
    table.add_row("mAP area", str(objects), *_compared(comparison.voc_map50))
    table.add_section()
    for row in comparison.per_class:
        table.add_row(Text(row.label), str(row.objects), *_compared(row.ap11))
    return table


def _compared(scores: Difference) -> list[str]:
    told = [_share(scores.first), _share(scores.second)]
    if scores.difference is None:
        return [*told, "-", "-"]
    return [*told, f"{scores.difference:+.3f}", f"{scores.low:+.3f} to {scores.high:+.3f}"]


def budget_table(recall: ProposalRecall) -> Table:
    """Recall by number of boxes per image; AR is the average recall over IoU 0.50:0.05:0.95."""
    table = Table(*_right("boxes", "recall@0.5", "recall@0.7", "AR", "MABO"))
    for point, mabo in zip(recall.curve, recall.mabo_curve, strict=True):
        table.add_row(
            "all" if point.boxes is None else str(point.boxes),
            *(_share(v) for v in (point.recall50, point.recall70, point.average_recall, mabo)),
        )
    return table


def group_table(title: str, groups: tuple[GroupRecall, ...]) -> Table:
    """Recall over all boxes, one line per class or size."""
    table = Table(title, *_right("objects", "recall@0.5", "recall@0.7", "AR", "ABO"))
    for group in groups:
        table.add_row(Text(group.name), str(group.objects), *_figures(group.curve[-1]))
    return table


def proposals_summary_table(recall: ProposalRecall) -> Table:
    """Counts and what failed."""
    table = Table(box=None, show_header=False)
    table.add_row("images", str(recall.images))
    table.add_row("objects", str(recall.objects))
    mean, median = recall.boxes_mean, recall.boxes_median
    per_image = "-" if mean is None or median is None else f"{mean:.1f} / {median:.0f}"
    table.add_row("boxes per image, mean / median", per_image)
    table.add_row("MABO", _share(recall.mabo))
    _add_failures(table, recall.failed, recall.failed_by_reason)
    return table


def _add_failures(table: Table, failed: int, by_reason: dict[str, int]) -> None:
    table.add_row("failed images", str(failed))
    for reason, count in by_reason.items():
        table.add_row(Text(f"  {reason}"), str(count))


def _figures(point: RecallPoint) -> list[str]:
    values = (point.recall50, point.recall70, point.average_recall, point.best_overlap)
    return [_share(value) for value in values]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shares(*values: float | None) -> str:
    return " / ".join(_share(value) for value in values)


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]
