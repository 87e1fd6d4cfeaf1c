"""Writes the report of a dataset: `write_dataset_report(output, dataset, counted)`.

It has the pages of a detection report: an index whose numbers lead to galleries of the images behind them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__, uris
from pipeline.inspection import suspicious_boxes
from pipeline.inspection.near_duplicates import NearPairs
from pipeline.inspection.shard_facts import (
    MANIFEST_COLUMNS,
    SIGNATURE_COLUMNS,
    read_shard_facts,
)
from pipeline.manifests import Manifest
from pipeline.report.collecting import GallerySample
from pipeline.report.dataset_drawing import DatasetImage, draw_dataset_images
from pipeline.report.dataset_galleries import WHOLE_IMAGE, DatasetCollector
from pipeline.report.dataset_sections import DatasetContext, build_dataset_sections
from pipeline.report.duplicate_pages import (
    LEGEND,
    build_pairs,
    choose_pairs,
    list_duplicate_pages,
    render_duplicate_pages,
)
from pipeline.report.figures import build_figure
from pipeline.report.gallery import Gallery
from pipeline.report.pages import INDEX_NAME, put_pages
from pipeline.report.rendering import describe_sampling, read_assets, render_page
from pipeline.report.sharing import count_listed, share_images
from pipeline.report.writing import ReportOptions
from pipeline.shards import Parts

REPORT_FOLDER = "dataset"
_PAIRS_IN_INDEX = 6
_SUSPICIOUS = (*suspicious_boxes.KINDS, "suspicious")


@dataclass(frozen=True)
class ReportedSplit:
    """One split of the report."""

    name: str
    manifest: Manifest
    parts: Parts
    """The signatures of its images."""
    first_number: int
    """Number of its first image over all splits."""


@dataclass(frozen=True)
class ReportedDataset:
    """What a report is made from; no rows are in memory."""

    splits: Sequence[ReportedSplit]
    classes: tuple[str, ...]
    """The labels of all splits."""
    pairs: NearPairs
    reasons: Mapping[int, int]
    """By number, why images are left out: position among `dataset_galleries.REASONS`."""
    notes: tuple[str, ...] = ()


def count_dataset(dataset: ReportedDataset, seed: int = 0) -> list[GallerySample]:
    """Count and sample the galleries of all splits.

    Raises:
        UnreadableDataset: a manifest or a part is damaged.
    """
    samples = []
    for position, split in enumerate(dataset.splits):
        collector = DatasetCollector(
            position, split.first_number, split.name, dataset.classes, seed
        )
        for shard in split.parts.shards:
            rows = split.manifest.read(shard.first_row, shard.rows, MANIFEST_COLUMNS)
            signatures = split.parts.read(shard, SIGNATURE_COLUMNS)
            facts = read_shard_facts(rows, signatures, shard.first_row, dataset.classes)
            collector.update(facts, _find_reasons(dataset, split, shard.first_row, shard.rows))
        samples += collector.compute()
    return samples


def _find_reasons(
    dataset: ReportedDataset, split: ReportedSplit, first_row: int, rows: int
) -> NDArray[np.int64]:
    start = split.first_number + first_row
    return np.array([dataset.reasons.get(start + row, -1) for row in range(rows)], np.int64)


def write_dataset_report(
    output: str,
    dataset: ReportedDataset,
    samples: Sequence[GallerySample],
    options: ReportOptions,
) -> str:
    """Write the report into `OUTPUT/dataset/`.

    Args:
        output: the folder of dataset.json; any fsspec URI.
        dataset: what was inspected.
        samples: as `count_dataset` returns them.
        options: the number of images, and the seed of the samples.

    Returns:
        The URI of the first page.

    Raises:
        StorageError: the report cannot be written.
    """
    report = uris.join(output, REPORT_FOLDER)
    first_numbers = [split.first_number for split in dataset.splits]
    pages = list_duplicate_pages(
        dataset.pairs, first_numbers, [s.name for s in dataset.splits], options.seed
    )
    chosen = choose_pairs(pages.values(), dataset.pairs, options.images // 2)
    paired = {
        int(number)
        for row in chosen
        for number in (dataset.pairs.first[row], dataset.pairs.second[row])
    }
    shown = share_images(samples, options.images - len(paired))
    drawn = _draw(report, dataset, samples, shown, paired)
    galleries = _build_galleries(samples, shown, drawn)
    footer = f"fast-rcnn-pipeline {__version__}, seed {options.seed}."
    strips = {
        key: build_pairs(page, dataset.pairs, chosen, drawn)[:_PAIRS_IN_INDEX]
        for key, page in pages.items()
    }
    context = DatasetContext(
        tuple((s.name, uris.redact_uri(s.manifest.uri)) for s in dataset.splits),
        dataset.classes,
        galleries,
        pages,
        strips,
        dataset.notes,
    )

    def render_pages() -> Iterator[tuple[str, bytes]]:
        yield from read_assets().items()
        for gallery in galleries.values():
            yield gallery.address, _render_gallery(gallery, options.seed, footer)
        yield from render_duplicate_pages(pages, dataset.pairs, chosen, drawn, footer)
        yield INDEX_NAME, _render_index(context, footer)

    paths = {t.path for i in drawn.values() for t in i.thumbnails.values() if t.path is not None}
    put_pages(report, render_pages(), paths)
    return uris.join(report, INDEX_NAME)


def _draw(
    report: str,
    dataset: ReportedDataset,
    samples: Sequence[GallerySample],
    shown: Sequence[int],
    paired: set[int],
) -> dict[int, DatasetImage]:
    positions: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    drawn: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for sample, count in zip(samples, shown, strict=True):
        references = sample.sample.references[: count_listed(sample, count)].tolist()
        for split, number, position, _ in references:
            (drawn if count else positions)[split][number].add(position)
    for number in paired:
        firsts = [split.first_number for split in dataset.splits]
        split = int(np.searchsorted(firsts, number, side="right") - 1)
        drawn[split][number].add(WHOLE_IMAGE)
    images: dict[int, DatasetImage] = {}
    for position, split_of in enumerate(dataset.splits):
        images |= draw_dataset_images(
            report,
            split_of.manifest,
            split_of.first_number,
            positions[position],
            drawn[position],
        )
    return images


def _build_galleries(
    samples: Sequence[GallerySample], shown: Sequence[int], drawn: Mapping[int, DatasetImage]
) -> dict[str, Gallery]:
    galleries = {}
    for sample, count in zip(samples, shown, strict=True):
        kind = sample.key.split("-", 2)[2]
        references = sample.sample.references[: count_listed(sample, count)].tolist()
        items = tuple(
            drawn[number].build_item(position, is_suspicious=kind in _SUSPICIOUS)
            for _, number, position, _ in references
        )
        galleries[sample.key] = Gallery(
            sample.key, sample.title, sample.sample.total, items, sample.unit, sample.description
        )
    return galleries


def _render_gallery(gallery: Gallery, seed: int, footer: str) -> bytes:
    return render_page(
        "gallery.html",
        "../",
        title=gallery.title,
        gallery=gallery,
        crumbs=[],
        sampling=describe_sampling(gallery, seed),
        legend=LEGEND,
        items=[build_figure(item) for item in gallery.items],
        footer=footer,
    )


def _render_index(context: DatasetContext, footer: str) -> bytes:
    names = ", ".join(name for name, _ in context.splits)
    return render_page(
        "index.html",
        "",
        title="Dataset report",
        kicker=context.splits[0][1],
        lead=f"{names}: what the dataset holds and what may be wrong with it. "
        "Every count leads to the images behind it.",
        sections=build_dataset_sections(context),
        footer=footer,
    )
