"""Signatures for the images of a piece: read, decode and hash each; what fails becomes its failure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import pyarrow as pa

from pipeline import imaging, schema
from pipeline.engine.inspect.plan import InspectionPlan
from pipeline.engine.propose.faults import PieceFaults
from pipeline.engine.propose.reading import PieceReader
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.watchdog import time_limit
from pipeline.errors import UnreadableImage
from pipeline.inspection.signature import DECODED_SIDE, Signature, compute_signature
from pipeline.runs.encoded_image import IMAGE_ERRORS, EncodedImage
from pipeline.runs.report import Failure, Report
from pipeline.shards import Shard
from pipeline.stated_sizes import check_size


@dataclass(frozen=True)
class InspectedImage:
    """One image with its signature, or with its failure."""

    encoded: EncodedImage
    signature: Signature | None = None


def inspect_piece(
    plan: InspectionPlan,
    piece: Piece,
    report: Report,
    *,
    is_last_chance: bool,
    is_watched: bool = True,
) -> pa.Table:
    """The rows of `schema.SIGNATURES` of a piece.

    Args:
        plan: the inspection.
        piece: whose images.
        report: receives seconds, bytes and failures.
        is_last_chance: whether the piece is not tried again if this raises.
        is_watched: whether an image that takes too long ends this process.

    Raises:
        StorageError: a store fails, which is not an image's fault.
        UnreadableDataset: the manifest changed.
    """
    rows = piece.read_images(plan.manifest, plan.fingerprint)
    faults = PieceFaults(is_last_chance=is_last_chance)
    reader = PieceReader(rows, report, faults)
    inspected = []
    for index in range(len(rows)):
        encoded = reader.read(index)
        with time_limit(plan.options.image_seconds) if is_watched else nullcontext():
            image = _inspect(encoded, plan, report)
        if encoded.failure is not None:  # the part does not store the stage
            report.fail(Failure("inspect", encoded.failure.error_type, encoded.failure.message))
        encoded.data = None
        inspected.append(image)
    faults.check()
    return build_signature_table(inspected, plan.fingerprint)


def inspect_shard(plan: InspectionPlan, shard: Shard, is_last_chance: bool) -> Report:
    """Inspect a shard in the driver's process, which no image may end, and commit its part.

    Raises:
        StorageError: as `inspect_piece`, like all others.
    """
    piece, report = Piece(shard), Report()
    table = inspect_piece(plan, piece, report, is_last_chance=is_last_chance, is_watched=False)
    return commit_or_return(piece, plan.output, table, report)


def _inspect(encoded: EncodedImage, plan: InspectionPlan, report: Report) -> InspectedImage:
    if encoded.failure is not None or encoded.data is None:
        return InspectedImage(encoded)
    decoding = plan.manifest.decoding
    try:
        with report.time_stage("decode"):
            header = imaging.read_header(encoded.data)
            is_turned = decoding.exif == "apply"
            size = header.displayed_size if is_turned else (header.width, header.height)
            image = imaging.decode_image(encoded.data, decoding, enough=DECODED_SIDE)
            encoded.width, encoded.height = size
            check_size(size, encoded.stated_size, turned=is_turned)
        with report.time_stage("hash"):
            return InspectedImage(encoded, compute_signature(image))
    except (UnreadableImage, *IMAGE_ERRORS) as error:
        encoded.failure = Failure.from_error("inspect", error)
        return InspectedImage(encoded)


def build_signature_table(images: Sequence[InspectedImage], fingerprint: str) -> pa.Table:
    """Rows of `schema.SIGNATURES`, one per image; a failed image has no signature."""
    encoded = [image.encoded for image in images]
    failures = [image.failure for image in encoded]
    contents = [image.content for image in encoded]
    signatures = [image.signature for image in images]
    columns = {
        "image_id": [image.image_id for image in encoded],
        "width": [image.width for image in encoded],
        "height": [image.height for image in encoded],
        "status": ["failed" if failure else "ok" for failure in failures],
        "error_type": [failure and failure.error_type for failure in failures],
        "error_message": [failure and failure.message for failure in failures],
        "hashes": [None if s is None else s.hashes for s in signatures],
        "pixels": [None if s is None else s.pixels.tobytes() for s in signatures],
        "brightness": [None if s is None else s.brightness for s in signatures],
        "contrast": [None if s is None else s.contrast for s in signatures],
        "image_key": [image.key for image in encoded],
        "image_bytes": [content and content.size for content in contents],
        "image_md5": [content and content.md5 for content in contents],
    }
    target = schema.add_metadata(schema.SIGNATURES, {"fingerprint": fingerprint})
    arrays = [pa.array(columns[field.name], field.type) for field in target]
    return pa.Table.from_arrays(arrays, schema=target)
