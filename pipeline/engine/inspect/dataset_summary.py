"""The numbers of an inspection, as dataset.json holds them and the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import __version__, uris
from pipeline.engine.inspect.findings import Findings
from pipeline.inspection import suspicious_boxes
from pipeline.inspection.near_duplicates import COPIES, MOST_BITS, describe_copy
from pipeline.inspection.pixel_comparison import SIMILAR
from pipeline.inspection.shard_facts import IMAGE_KINDS
from pipeline.report.collecting import GallerySample
from pipeline.report.dataset_galleries import REASONS, name_gallery
from pipeline.report.dataset_report import ReportedDataset, ReportedSplit


def report_dataset(findings: Findings) -> ReportedDataset:
    """What the report is made from."""
    splits = [
        ReportedSplit(split.name, split.inputs.manifest, split.parts, int(first))
        for split, first in zip(findings.splits, findings.first_numbers, strict=False)
    ]
    reasons = {name: position for position, name in enumerate(REASONS)}
    classes = dict.fromkeys(label for split in findings.splits for label in split.inputs.classes)
    return ReportedDataset(
        splits,
        tuple(classes),
        findings.pairs,
        {row.image: reasons[row.reason] for row in findings.exclusions},
        tuple(_list_notes(findings)),
    )


def _list_notes(findings: Findings) -> list[str]:
    notes = []
    first = findings.splits[0]
    for split in findings.splits[1:]:
        missing = [name for name in first.inputs.classes if name not in split.inputs.classes]
        more = [name for name in split.inputs.classes if name not in first.inputs.classes]
        for names, there, here in ((missing, first, split), (more, split, first)):
            if names:
                shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                notes.append(f"{there.name} has classes that {here.name} has not: {shown}")
    if findings.pairs.full_buckets:
        notes.append(
            f"{findings.pairs.full_buckets} buckets of hashes held more images than are compared with each "
            "other: some near duplicates among very similar images may be missing"
        )
    return notes


def summarize_dataset(
    findings: Findings, dataset: ReportedDataset, samples: Sequence[GallerySample]
) -> dict[str, Any]:
    """The content of dataset.json.

    Args:
        findings: the duplicates.
        dataset: the splits.
        samples: the counted galleries.
    """
    totals = {sample.key: sample.sample.total for sample in samples}
    return {
        "splits": [
            _summarize_split(split, position, dataset.classes, totals)
            for position, split in enumerate(dataset.splits)
        ],
        "duplicates": _summarize_pairs(findings),
        "duplicate_groups": findings.groups.count,
        "rule": {"most_bits": MOST_BITS, "similarity": SIMILAR},
        "version": __version__,
        "notes": list(dataset.notes),
    }


def _summarize_split(
    split: ReportedSplit, position: int, classes: Sequence[str], totals: Mapping[str, int]
) -> dict[str, Any]:
    def count(key: str) -> int:
        return totals.get(name_gallery(position, key), 0)

    return {
        "name": split.name,
        "manifest": uris.redact_uri(split.manifest.uri),
        "images": count("images"),
        "unlabelled": count("unlabelled"),
        "without_objects": count("empty"),
        "objects": count("objects"),
        "objects_by_class": {name: count(f"class-{k}") for k, name in enumerate(classes)},
        "images_with": {IMAGE_KINDS[kind][0]: count(kind) for kind in IMAGE_KINDS},
        "suspicious_boxes": {
            title: count(kind) for kind, (title, _) in suspicious_boxes.KINDS.items()
        },
        "leaks": count("leak"),
        "repeated": count("duplicate"),
    }


def _summarize_pairs(findings: Findings) -> list[dict[str, Any]]:
    """The pairs within each split and between two, by how the copies differ."""
    pairs = findings.pairs
    first, second = findings.find_splits(pairs.first), findings.find_splits(pairs.second)
    copies = np.array([COPIES.index(describe_copy(view)) for view in pairs.view.tolist()], int)
    rows = []
    for a, split in enumerate(findings.splits):
        for b in range(a, len(findings.splits)):
            is_here = (first == a) & (second == b)
            counts = np.bincount(copies[is_here], minlength=len(COPIES))
            rows.append(
                {
                    "splits": [split.name, findings.splits[b].name],
                    "pairs": int(is_here.sum()),
                    "copies": dict(zip(COPIES, counts.tolist(), strict=True)),
                }
            )
    return rows
