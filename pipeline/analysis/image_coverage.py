"""Describes the images that an analysis does not cover: failed ones and left out ones, with the reasons."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def list_failure_reasons(results: pa.Table) -> list[str]:
    """Return `stage: error_type` of each failed row, or only the error type if rows have no stage."""
    failed = results.filter(pc.not_equal(results.column("status"), "ok"))
    types = failed.column("error_type").to_pylist()
    if "stage" not in failed.column_names:
        return [str(kind) for kind in types]
    stages = failed.column("stage").to_pylist()
    return [f"{stage}: {kind}" for stage, kind in zip(stages, types, strict=True)]


def describe_coverage(images: int, manifest_images: int, unlabelled: int) -> list[str]:
    """Write a sentence for each reason why not all images of the manifest are scored."""
    notes = []
    if images < manifest_images:
        notes.append(f"scored over the first {images} of the manifest's {manifest_images} images")
    if unlabelled:
        notes.append(f"{unlabelled} images without annotations are left out")
    return notes
