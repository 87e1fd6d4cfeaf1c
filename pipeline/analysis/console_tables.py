"""Tables of the metrics for a terminal."""

from __future__ import annotations

from rich.table import Column, Table
from rich.text import Text

from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.overlap import GroupRecall, RecallPoint
from pipeline.analysis.paired_figures import ScoreDifference
from pipeline.analysis.recall import ProposalRecall
from pipeline.analysis.run_comparison import RunComparison
from pipeline.printable import escape_unprintable


def build_class_table(metrics: DetectionMetrics) -> Table:
    """Build a table with one line per class and one of means."""
    table = Table(
        "class", *_align_right("objects", "detections", "AP 11-point", "AP area", "COCO AP")
    )
    for row in metrics.per_class:
        table.add_row(
            _show_name(row.label),
            str(row.objects),
            str(row.detections),
            *(_format_share(value) for value in (row.ap11, row.ap_area, row.coco_ap)),
        )
    table.add_section()
    table.add_row(
        "mean",
        str(metrics.objects),
        str(metrics.detections),
        *(_format_share(v) for v in (metrics.voc07_map50, metrics.voc_map50, metrics.coco_ap)),
    )
    return table


def build_summary_table(metrics: DetectionMetrics) -> Table:
    """Build a table of the means, the counts and the failures."""
    table = Table(box=None, show_header=False)
    table.add_row("VOC 2007 mAP, IoU 0.5", _format_share(metrics.voc07_map50))
    table.add_row("VOC mAP (area), IoU 0.5", _format_share(metrics.voc_map50))
    table.add_row("COCO AP, IoU 0.50:0.95", _format_share(metrics.coco_ap))
    table.add_row("COCO AP, IoU 0.50 / 0.75", _format_shares(metrics.coco_ap50, metrics.coco_ap75))
    table.add_row(
        "COCO AP, small / medium / large",
        _format_shares(metrics.coco_ap_small, metrics.coco_ap_medium, metrics.coco_ap_large),
    )
    table.add_row(
        "COCO AR, best 1 / 10 / 100 detections",
        _format_shares(metrics.coco_ar_1, metrics.coco_ar_10, metrics.coco_ar_100),
    )
    table.add_row(
        "COCO AR, small / medium / large",
        _format_shares(metrics.coco_ar_small, metrics.coco_ar_medium, metrics.coco_ar_large),
    )
    table.add_row("images", str(metrics.images))
    table.add_row("detections", str(metrics.detections))
    _add_failures(table, metrics.failed, metrics.failed_by_reason)
    return table


def build_comparison_table(comparison: RunComparison) -> Table:
    """Build a table of both runs' means by both rules, then of each class by VOC2007's rule."""
    percent = f"{100 * comparison.confidence:.0f} % interval"
    table = Table("", *_align_right("objects", "first", "second", "difference", percent))
    objects = sum(row.objects for row in comparison.per_class)
    table.add_row("COCO AP", str(objects), *_format_difference(comparison.coco_ap))
    table.add_row("mAP 11-point", str(objects), *_format_difference(comparison.voc07_map50))
    table.add_row("mAP area", str(objects), *_format_difference(comparison.voc_map50))
    table.add_section()
    for row in comparison.per_class:
        table.add_row(_show_name(row.label), str(row.objects), *_format_difference(row.ap11))
    return table


def _format_difference(scores: ScoreDifference) -> list[str]:
    cells = [_format_share(scores.first), _format_share(scores.second)]
    if scores.difference is None:
        return [*cells, "-", "-"]
    return [*cells, f"{scores.difference:+.3f}", f"{scores.low:+.3f} to {scores.high:+.3f}"]


def build_budget_table(recall: ProposalRecall) -> Table:
    """Build a table of recall by boxes per image; AR is average recall over IoU 0.50:0.05:0.95."""
    table = Table(*_align_right("boxes", "recall@0.5", "recall@0.7", "AR", "MABO"))
    for point, mabo in zip(recall.curve, recall.mabo_curve, strict=True):
        table.add_row(
            "all" if point.boxes is None else str(point.boxes),
            *(
                _format_share(v)
                for v in (point.recall50, point.recall70, point.average_recall, mabo)
            ),
        )
    return table


def build_group_table(title: str, groups: tuple[GroupRecall, ...]) -> Table:
    """Build a table of recall over all boxes, one line per class or size."""
    table = Table(title, *_align_right("objects", "recall@0.5", "recall@0.7", "AR", "ABO"))
    for group in groups:
        table.add_row(_show_name(group.name), str(group.objects), *_format_point(group.curve[-1]))
    return table


def build_proposals_summary_table(recall: ProposalRecall) -> Table:
    """Build a table of the counts and the failures."""
    table = Table(box=None, show_header=False)
    table.add_row("images", str(recall.images))
    table.add_row("objects", str(recall.objects))
    mean, median = recall.boxes_mean, recall.boxes_median
    per_image = "-" if mean is None or median is None else f"{mean:.1f} / {median:.0f}"
    table.add_row("boxes per image, mean / median", per_image)
    table.add_row("MABO", _format_share(recall.mabo))
    _add_failures(table, recall.failed, recall.failed_by_reason)
    return table


def _add_failures(table: Table, failed: int, by_reason: dict[str, int]) -> None:
    table.add_row("failed images", str(failed))
    for reason, count in by_reason.items():
        table.add_row(_show_name(f"  {reason}"), str(count))


def _show_name(name: str) -> Text:
    """A name as a cell: a Text, because rich would read a label like [red] as markup."""
    return Text(escape_unprintable(name))


def _format_point(point: RecallPoint) -> list[str]:
    values = (point.recall50, point.recall70, point.average_recall, point.best_overlap)
    return [_format_share(value) for value in values]


def _format_share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _format_shares(*values: float | None) -> str:
    return " / ".join(_format_share(value) for value in values)


def _align_right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]
