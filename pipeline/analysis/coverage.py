"""Which images an analysis covers: those that failed and why, those left out and why."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def failure_reasons(results: pa.Table) -> list[str]:
    """`stage: error_type` of each failed row, or only the error type where rows have no stage."""
    failed = results.filter(pc.not_equal(results.column("status"), "ok"))
    types = failed.column("error_type").to_pylist()
    if "stage" not in failed.column_names:
        return [str(kind) for kind in types]
    stages = failed.column("stage").to_pylist()
    return [f"{stage}: {kind}" for stage, kind in zip(stages, types, strict=True)]


def coverage_notes(images: int, manifest_images: int, unlabelled: int) -> list[str]:
    """A sentence for each reason why not all images of the manifest were scored."""
    notes = []
    if images < manifest_images:
        notes.append(f"scored over the first {images} of the manifest's {manifest_images} images")
    if unlabelled:
        notes.append(f"{unlabelled} images without annotations are left out")
    return notes
