"""Describes the images that an analysis does not cover: failed ones and left out ones, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SizeMismatch


def list_failure_reasons(results: pa.Table) -> list[str]:
    """Return `stage: error_type` of each failed row, or only the error type if rows have no stage."""
    failed = results.filter(pc.not_equal(results.column("status"), "ok"))
    types = failed.column("error_type").to_pylist()
    if "stage" not in failed.column_names:
        return [str(kind) for kind in types]
    stages = failed.column("stage").to_pylist()
    return [f"{stage}: {kind}" for stage, kind in zip(stages, types, strict=True)]


def describe_mismatches(reasons: Mapping[str, int]) -> list[str]:
    """Write a sentence if images failed because their boxes are for another size.

    Args:
        reasons: failed images by `stage: error_type`, or only by error type.
    """
    count = sum(n for reason, n in reasons.items() if reason.endswith(SizeMismatch.__name__))
    if not count:
        return []
    return [
        f"{count} of the failed images have another size than their annotation or proposals state "
        f"({SizeMismatch.__name__}): their objects count as missed; the rows say why"
    ]


def describe_coverage(images: int, manifest_images: int, unlabelled: int) -> list[str]:
    """Write a sentence for each reason why not all images of the manifest are scored."""
    notes = []
    if images < manifest_images:
        notes.append(f"scored over the first {images} of the manifest's {manifest_images} images")
    if unlabelled:
        notes.append(f"{unlabelled} images without annotations are left out")
    return notes
