"""The sections of a dataset report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.inspection import suspicious_boxes
from pipeline.inspection.near_duplicates import COPIES, MOST_BITS
from pipeline.inspection.pixel_comparison import SIMILAR
from pipeline.inspection.shard_facts import IMAGE_KINDS
from pipeline.report.bars import build_count_bar, draw_bars
from pipeline.report.cells import Cell, Links
from pipeline.report.dataset_galleries import (
    ASPECT_EDGES,
    COUNT_EDGES,
    GRID,
    REASONS,
    SIZE_NAMES,
    name_gallery,
)
from pipeline.report.duplicate_pages import DuplicatePage, name_page
from pipeline.report.gallery import Gallery
from pipeline.report.grid_chart import draw_grid
from pipeline.report.views import (
    Card,
    Chart,
    Fact,
    Pair,
    PairStrip,
    Row,
    Section,
    Strip,
    Table,
    build_strip,
    drop_empty,
    list_columns,
)

_STRIP_ITEMS = 12


@dataclass(frozen=True)
class DatasetContext:
    """What the sections are built from."""

    splits: tuple[tuple[str, str], ...]
    """Name and manifest of each split."""
    classes: tuple[str, ...]
    galleries: Mapping[str, Gallery]
    pages: Mapping[str, DuplicatePage]
    strips: Mapping[str, tuple[Pair, ...]]
    """The first pairs of each page."""
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of the splits."""
        return [name for name, _ in self.splits]

    def count(self, split: int, key: str) -> Cell:
        """The count of one gallery of a split, as a link to it."""
        return Links(self.galleries).count(name_gallery(split, key))

    def total(self, split: int, key: str) -> int:
        """The count itself."""
        return Links(self.galleries).get_total(name_gallery(split, key))

    def count_pairs(self, first: int, second: int, kind: int | None = None) -> Cell:
        """The number of pairs of two splits, as a link to them."""
        page = self.pages.get(name_page(first, second, kind))
        return Cell("0", 0.0) if page is None else page.cell


def build_dataset_sections(context: DatasetContext) -> tuple[Section, ...]:
    """All sections that show something."""
    return drop_empty(
        [
            _build_overview(context),
            _build_duplicates(context),
            _build_images(context),
            _build_boxes(context),
            _build_classes(context),
            _build_objects(context),
            _build_settings(context),
        ]
    )


def _build_overview(context: DatasetContext) -> Section:
    keys = ("images", "objects", "suspicious", "failed", "leak", "duplicate")
    names = (
        "Images",
        "Objects",
        "Suspicious boxes",
        "Unreadable images",
        "Leaked images",
        "Repeated images",
    )
    first = context.names[0]
    counts = tuple(
        Card(name, context.count(0, key), f"in {first}")
        for name, key in zip(names, keys, strict=True)
    )
    columns = list_columns(
        "split",
        "images",
        ("unlabelled", "Images without annotations"),
        ("without objects", "Images that are annotated as showing none"),
        "objects",
        ("objects per image", "Mean over the annotated images"),
        ("suspicious", "Suspicious boxes"),
        ("unreadable", IMAGE_KINDS["failed"][1]),
        ("leaked", "Images that another split has, too"),
        ("repeated", "Images of which the split has an earlier copy"),
    )
    rows = tuple(
        _build_split_row(context, number, name) for number, name in enumerate(context.names)
    )
    table = Table("Splits", columns, rows, width="wide")
    return Section(
        "overview", "Overview", "Overview", "", context.notes, counts=counts, tables=(table,)
    )


def _build_split_row(context: DatasetContext, split: int, name: str) -> Row:
    annotated = context.total(split, "images") - context.total(split, "unlabelled")
    objects = context.count(split, "objects")
    mean = Cell("–")
    if annotated:
        value = (objects.count or 0) / annotated
        mean = Cell(f"{value:.2f}", value, objects.href)
    keys = ("images", "unlabelled", "empty")
    return Row(
        name,
        (
            *(context.count(split, key) for key in keys),
            objects,
            mean,
            *(context.count(split, key) for key in ("suspicious", "failed", "leak", "duplicate")),
        ),
    )


def _build_duplicates(context: DatasetContext) -> Section:
    names = context.names
    rows, strips = [], []
    for a, name in enumerate(names):
        for b in range(a, len(names)):
            title = f"within {name}" if a == b else f"{name} and {names[b]}"
            kinds = (context.count_pairs(a, b, kind) for kind in range(len(COPIES)))
            rows.append(Row(title, (context.count_pairs(a, b), *kinds)))
            page = context.pages.get(name_page(a, b))
            if page is not None:
                shown = context.strips[page.key]
                strips.append(PairStrip(page.title, page.total, page.address, shown))
    pairs = Table(
        "Pairs of images that are the same", list_columns("where", "pairs", *COPIES), tuple(rows)
    )
    left_out = Table(
        "Images to leave out",
        list_columns("split", *((reason, REASONS[reason][0]) for reason in REASONS)),
        tuple(
            Row(name, tuple(context.count(split, reason) for reason in REASONS))
            for split, name in enumerate(names)
        ),
        "exclude.parquet lists them: train and analyze detections take it as --exclude. An image is a leak "
        "if its group of duplicates reaches into another split; within a split, the first image stays.",
    )
    intro = (
        "Images are the same if a perceptual hash of one, as it is, mirrored or without a margin, differs "
        f"from that of the other in at most {MOST_BITS} of 64 bits, and their grey pixels correlate by "
        f"{SIMILAR} or more."
    )
    return Section(
        "duplicates",
        "Duplicates",
        "Duplicates and leaks",
        intro,
        tables=(pairs, left_out),
        pairs=tuple(strips),
    )


def _build_kinds(
    context: DatasetContext, kinds: Mapping[str, tuple[str, str]], title: str
) -> tuple[Table, tuple[Strip, ...]]:
    """A table of kinds by split, and the first images of each kind of the first split."""
    rows = tuple(
        Row(name, tuple(context.count(split, key) for split in range(len(context.splits))))
        for key, (name, _) in kinds.items()
    )
    note = " ".join(f"{name[0].upper()}{name[1:]}: {text}" for name, text in kinds.values())
    strips = []
    for split in range(len(context.splits)):
        for key in kinds:
            gallery = context.galleries.get(name_gallery(split, key))
            if gallery is not None:
                strips.append(build_strip(gallery, _STRIP_ITEMS))
    return Table(title, list_columns("what", *context.names), rows, note), tuple(strips)


def _build_images(context: DatasetContext) -> Section:
    table, strips = _build_kinds(context, IMAGE_KINDS, "Images")
    return Section("images", "Images", "Images", tables=(table,), strips=strips)


def _build_boxes(context: DatasetContext) -> Section:
    if not any(context.total(split, "objects") for split in range(len(context.splits))):
        return Section("boxes", "Boxes", "Suspicious boxes")
    table, strips = _build_kinds(context, suspicious_boxes.KINDS, "Suspicious boxes")
    return Section("boxes", "Boxes", "Suspicious boxes", tables=(table,), strips=strips)


def _build_classes(context: DatasetContext) -> Section:
    splits = range(len(context.splits))
    totals = [max(context.total(split, "objects"), 1) for split in splits]
    if not context.classes or sum(totals) == len(totals):
        return Section("classes", "Classes", "Classes")
    rows = []
    for k, label in enumerate(context.classes):
        cells: list[Cell] = []
        for split in splits:
            cell = context.count(split, f"class-{k}")
            share = (cell.count or 0) / totals[split]
            cells += [cell, Cell(f"{100 * share:.1f} %", share, cell.href)]
        rows.append(Row(label, tuple(cells)))
    names = [
        part
        for name in context.names
        for part in (name, (f"share of {name}", "Share of its objects"))
    ]
    table = Table("Objects by class", list_columns("class", *names), tuple(rows), is_sortable=True)
    bars = [
        build_count_bar(label, context.count(0, f"class-{k}"))
        for k, label in enumerate(context.classes)
    ]
    bars.sort(key=lambda bar: -(bar.value or 0))
    title = f"Objects by class, {context.names[0]}"
    chart = Chart(title, draw_bars(title, bars[:40]))
    return Section("classes", "Classes", "Classes", tables=(table,), charts=(chart,))


def _build_objects(context: DatasetContext) -> Section:
    if not any(context.total(split, "objects") for split in range(len(context.splits))):
        return Section("objects", "Objects", "Objects")
    charts = []
    for split, name in enumerate(context.names):
        cells = [[context.count(split, f"cell-{x}-{y}") for x in range(GRID)] for y in range(GRID)]
        title = f"Where objects have their centres, {name}"
        charts.append(Chart(title, draw_grid(title, cells)))
    tables = (
        _build_step_table(context, "Images by number of objects", "with", COUNT_EDGES),
        _build_step_table(context, "Objects by width by height", "aspect", ASPECT_EDGES),
        Table(
            "Objects by size",
            list_columns("size", *context.names),
            tuple(
                Row(
                    size,
                    tuple(
                        context.count(split, f"size-{size}") for split in range(len(context.splits))
                    ),
                )
                for size in SIZE_NAMES
            ),
            "COCO's sizes, by the area of the box: small below 32², large from 96² pixels on.",
        ),
    )
    return Section(
        "objects",
        "Objects",
        "Objects: number, size, shape, position",
        charts=tuple(charts),
        tables=tables,
    )


def _build_step_table(
    context: DatasetContext, title: str, prefix: str, edges: Sequence[float]
) -> Table:
    """A table of steps by split, as the families of `dataset_galleries` define them."""
    rows = []
    for index, low in enumerate(edges):
        key = f"{prefix}-{low}" if prefix == "with" else f"{prefix}-{index}"
        cells = tuple(context.count(split, key) for split in range(len(context.splits)))
        rows.append(Row(_name_step(edges, index, is_count=prefix == "with"), cells))
    return Table(title, list_columns("from", *context.names), tuple(rows))


def _name_step(edges: Sequence[float], index: int, *, is_count: bool) -> str:
    low = edges[index]
    if index + 1 == len(edges):
        return f"{low:.3g} or more"
    high = edges[index + 1]
    if not is_count:
        return f"{low:.2g} to {high:.2g}"
    return f"{low:.0f}" if high - low == 1 else f"{low:.0f} to {high - 1:.0f}"


def _build_settings(context: DatasetContext) -> Section:
    facts = tuple(Fact(name, uri, is_code=True) for name, uri in context.splits)
    return Section("settings", "Settings", "Where the numbers come from", facts=facts)
