"""What a dataset holds and what is wrong with it: the options of `analyze dataset`, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from jobs.entry import JobOptions, print_lines
from pipeline import storage, uris
from pipeline.engine.inspect.dataset_summary import report_dataset, summarize_dataset
from pipeline.engine.inspect.run import InspectionOptions, inspect_dataset
from pipeline.option_ranges import check_fields
from pipeline.report.dataset_report import count_dataset, write_dataset_report
from pipeline.report.writing import ReportOptions
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.sources.tally import describe_count

SUMMARY_NAME = "dataset.json"
WRITES = (
    *(SUMMARY_NAME, "duplicates.parquet", "duplicate_groups.parquet", "exclude.parquet"),
    *(f"{folder}/{name}" for folder in ("signatures", "signatures-*") for name in RUN_WRITES),
    "dataset/*",
)
"""The files that the job writes into its output."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeDataset(JobOptions):
    """Check a dataset: suspicious boxes, unreadable images, duplicates, images that other splits have too."""

    manifest: str
    """Manifest to check: a Parquet file or a folder of them; any fsspec URI."""
    against: tuple[str, ...] = ()
    """Manifests of other splits, to find images that are in both."""
    output: str
    """Folder for dataset.json, the lists of duplicates and of images to leave out, and the report."""
    report: bool = True
    """Write the report, static pages that open from a disk or bucket."""
    report_images: int = 1000
    """The most images in the report."""
    seed: int = 0
    """Seed of the images in the report."""
    inspection: Annotated[InspectionOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=InspectionOptions
    )

    def __post_init__(self) -> None:
        check_fields(self, "report_images", "seed", at_least=0)


def analyze_dataset(options: AnalyzeDataset, *, are_images_tried: bool = False) -> None:
    """Inspect the images, write what is found and print it.

    Args:
        options: of the job.
        are_images_tried: some images have been decoded already; otherwise that comes first.
    """
    inputs = {"manifest": options.manifest, "against": options.against}
    check_apart(options.output, inputs, WRITES, may_share_folder=True)
    findings = inspect_dataset(
        options.manifest,
        options.output,
        options.against,
        options.inspection,
        are_images_tried=are_images_tried,
    )
    dataset = report_dataset(findings)
    samples = count_dataset(dataset, options.seed)
    summary = summarize_dataset(findings, dataset, samples)
    findings.write(options.output)
    target = uris.join(options.output, SUMMARY_NAME)
    storage.put(target, json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")
    print_lines(*format_lines(summary), f"wrote {uris.redact_uri(uris.make_absolute(target))}")
    if options.report:
        choice = ReportOptions(images=options.report_images, seed=options.seed)
        page = write_dataset_report(options.output, dataset, samples, choice)
        print_lines(f"report: {uris.redact_uri(uris.make_absolute(page))}")


def format_lines(summary: dict[str, Any]) -> Sequence[str]:
    """What the job prints about each split, and about duplicates."""
    lines = []
    for split in summary["splits"]:
        problems = {**split["images_with"], **split["suspicious_boxes"]}
        named = ", ".join(f"{name} {count}" for name, count in problems.items() if count)
        lines.append(
            f"{split['name']}: {describe_count(split['images'], 'image')}, "
            f"{describe_count(split['objects'], 'object')}; "
            f"{named or 'nothing suspicious'}"
        )
    for row in summary["duplicates"]:
        copies = ", ".join(f"{name} {count}" for name, count in row["copies"].items() if count)
        where = " and ".join(dict.fromkeys(row["splits"]))
        lines.append(
            f"duplicates, {where}: {describe_count(row['pairs'], 'pair')}"
            + (f" ({copies})" if copies else "")
        )
    for split in summary["splits"]:
        if split["leaks"] or split["repeated"]:
            lines.append(
                f"to leave out of {split['name']} (--exclude): {describe_count(split['leaks'], 'image')} "
                f"that another split has, {split['repeated']} repeated"
            )
    return [*lines, *(f"note: {note}" for note in summary["notes"])]
