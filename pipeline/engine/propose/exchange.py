"""Imports proposals from other tools' files into an output of `propose`, and exports such an output.

Neither needs Ray: the time goes into one file that must be read, or written, as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import manifests, schema, shards, storage, uris
from pipeline.engine.propose.imported_boxes import BoxLimits, repair_proposals
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.proposals.interchange import read_detectron2_pickle, read_girshick_mat
from pipeline.proposals.peer_formats import NAMED_BY_FILE, WRITERS, PeerFormat
from pipeline.proposals.stored_proposals import open_stored_proposals
from pipeline.run_record import RunRecord
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.input_places import RUN_WRITES, check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.tables import build_proposals_table
from pipeline.shards import Parts, Shard
from pipeline.untrusted.proposal_files import ImageProposals

ProposalFormat = Literal["mat", "pkl"]

READERS: Mapping[ProposalFormat, Callable[[str], Iterator[ImageProposals]]] = {
    "mat": read_girshick_mat,
    "pkl": read_detectron2_pickle,
}
"""Girshick's `.mat` and detectron2's `.pkl`."""

SHARD_SIZE = 256


@dataclass(frozen=True)
class ExchangeCounts:
    """What an import or export converted."""

    images: int
    boxes: int
    left_out: int
    """Images of the source that were not written."""
    repairs: str = ""
    """Boxes that an import dropped or clipped, by reason; empty if there were none."""


def get_format(uri: str) -> ProposalFormat:
    """The format of a file, from the end of its name.

    Raises:
        InvalidConfiguration: the name ends in neither .mat nor .pkl.
    """
    for name in READERS:
        if uri.lower().endswith(f".{name}"):
            return name
    raise InvalidConfiguration(
        f"{uris.redact_uri(uri)} is neither a .mat (Girshick's selective search boxes) nor a .pkl "
        "file (detectron2's proposals)"
    )


def import_proposals(
    source_uri: str,
    manifest_uri: str,
    output_uri: str,
    *,
    max_boxes: int | None = None,
    overwrite: bool = False,
    limits: BoxLimits | None = None,
) -> ExchangeCounts:
    """Write a file's boxes for a manifest's images in the form that `propose` writes.

    Args:
        source_uri: a `.mat` or `.pkl` file; its names are the manifest's image ids.
        manifest_uri: the images; other images of the file are left out.
        output_uri: folder for the parts.
        max_boxes: maximum number of boxes per image; the first ones are kept.
        overwrite: remove an earlier run from the output and start again.
        limits: how many boxes may be dropped because they have no area, no finite corners or no score or are
            outside their image, or may be clipped by more than a pixel.

    Raises:
        MismatchedProposals: the file lacks an image of the manifest, or more boxes are invalid.
        MismatchedOutput: the output holds another run.
        InvalidConfiguration: the output is the file or the manifest.
        UnreadableDataset: the file is damaged, in another format, or names an image twice.
        StorageError: a store fails.
    """
    source_uri, target = uris.make_absolute(source_uri), uris.make_absolute(output_uri)
    source_format = get_format(source_uri)
    manifest = manifests.open_manifest(manifest_uri)
    check_apart(target, {"source": source_uri, "manifest": manifest.uri}, RUN_WRITES)
    storage.check_writable(target)
    proposals = _read_proposals(source_uri, source_format)
    _check_complete(source_uri, proposals, manifest)
    boxes_by_image, repairs = repair_proposals(manifest, proposals)
    repairs.check(source_uri, limits or BoxLimits())
    provenance = {
        "algorithm": "imported",
        "format": source_format,
        "digest": hashlib.sha256(storage.read(source_uri)).hexdigest(),
        "max_boxes": max_boxes,
    }
    options = RunOptions(shard_size=SHARD_SIZE, overwrite=overwrite)
    cut = plan_cut(manifest, target, options)
    record = RunRecord(
        "propose",
        {"dataset": cut.dataset, "proposals": provenance},
        {"manifest": uris.redact_uri(manifest.uri), "source": uris.redact_uri(source_uri)},
    )
    ready = open_run(target, record, cut, options)
    box_count = 0
    for shard in ready.shards:
        encoded_images = _select_boxes(manifest, shard, boxes_by_image, max_boxes)
        box_count += sum(len(p.boxes) for p in encoded_images if p.boxes is not None)
        if shard.ordinal not in ready.committed:
            table = build_proposals_table(encoded_images, provenance, record.fingerprint)
            shards.put_part(target, shard, table)
    ready.finish({"images": manifest.rows, "images_failed": 0, "boxes": box_count})
    left_out = len(proposals) - manifest.rows
    return ExchangeCounts(manifest.rows, box_count, left_out, repairs.describe())


def export_proposals(
    proposals_uri: str,
    target_uri: str,
    peer_format: PeerFormat = "detectron2",
    *,
    manifest_uri: str | None = None,
    max_boxes: int | None = None,
) -> ExchangeCounts:
    """Write an output of `propose` in another project's layout, without the images that failed.

    Args:
        proposals_uri: the output.
        target_uri: the file to write; a folder for `detreg`.
        peer_format: the layout.
        manifest_uri: the images, for formats that name them by their files; without it, the ends of the image
            ids are taken for the names.
        max_boxes: maximum number of boxes per image, the best ones.

    Raises:
        UnreadableDataset: the output is incomplete or holds no proposals.
        MismatchedProposals: the proposals are for other or more images than the manifest's.
        InvalidConfiguration: the target's name does not fit the format, it is an input, or the image ids do
            not fit.
        StorageError: a store fails.
    """
    target = uris.make_absolute(target_uri)
    ending, write = WRITERS[peer_format]
    if not target.lower().endswith(ending):
        raise InvalidConfiguration(
            f"{uris.redact_uri(target)}: the format {peer_format} is written to a {ending} file"
        )
    check_apart(target, {"proposals": proposals_uri, "manifest": manifest_uri})
    parts = shards.open_parts(proposals_uri)
    if "boxes" not in parts.read_schema().names:
        raise UnreadableDataset(
            f"{uris.redact_uri(parts.uri)} has no column boxes, so no propose run wrote it"
        )
    names = None
    if manifest_uri is not None and peer_format in NAMED_BY_FILE:
        names = _read_file_names(_open_named_images(parts, manifest_uri))
    written = write(target, _iterate_proposals(parts, names, max_boxes))
    return ExchangeCounts(written.images, written.boxes, parts.rows - written.images)


def _open_named_images(parts: Parts, manifest_uri: str) -> Manifest:
    """The manifest whose images the proposals are for, if it names the file of each.

    Raises:
        MismatchedProposals: they are for other, fewer or more images.
        InvalidConfiguration: the images have no files of their own.
    """
    manifest = manifests.open_manifest(manifest_uri)
    open_stored_proposals(parts.uri, manifest)
    if parts.rows > manifest.rows:
        raise MismatchedProposals(
            f"{uris.redact_uri(parts.uri)} has proposals for {parts.rows} images, but "
            f"{uris.redact_uri(manifest.uri)} names the files of {manifest.rows}: pass the manifest of all "
            "these images"
        )
    if manifest.has_members:
        raise InvalidConfiguration(
            f"{uris.redact_uri(manifest.uri)}: its images lie inside other files and have no file names; "
            "leave out --manifest to take their image ids"
        )
    return manifest


def _read_file_names(manifest: Manifest) -> Iterator[str]:
    for batch in manifest.read_batches(["uri"]):
        yield from batch.column("uri").to_pylist()


def _iterate_proposals(
    parts: Parts, names: Iterator[str] | None, max_boxes: int | None
) -> Iterator[ImageProposals]:
    """The images that did not fail, by image_id or by their `names`."""
    for table in parts.read_tables(["image_id", "boxes", "status"]):
        columns = [table[name].to_pylist() for name in ("image_id", "status")]
        for image_id, status, boxes in zip(
            *columns, schema.split_box_column(table["boxes"]), strict=True
        ):
            name = image_id if names is None else next(names)
            if status == "ok":
                yield ImageProposals(name, boxes[:max_boxes], None)


def _read_proposals(uri: str, source_format: ProposalFormat) -> dict[str, ImageProposals]:
    proposals: dict[str, ImageProposals] = {}
    for image in READERS[source_format](uri):
        if image.image_id in proposals:
            raise UnreadableDataset(f"{uris.redact_uri(uri)} names image {image.image_id!r} twice")
        proposals[image.image_id] = image
    return proposals


def _check_complete(uri: str, proposals: Mapping[str, Any], manifest: Manifest) -> None:
    missing, first = 0, None
    for batch in manifest.read_batches(["image_id"]):
        for image_id in batch.column("image_id").to_pylist():
            if image_id not in proposals:
                missing, first = missing + 1, first or image_id
    if missing:
        raise MismatchedProposals(
            f"{uris.redact_uri(uri)} has no boxes for {missing} of the {manifest.rows} images of "
            f"{uris.redact_uri(manifest.uri)}, the first is {first!r}; it names images like "
            f"{next(iter(proposals), 'none at all')!r}"
        )


def _select_boxes(
    manifest: Manifest,
    shard: Shard,
    boxes_by_image: Mapping[str, NDArray[np.float32]],
    max_boxes: int | None,
) -> list[EncodedImage]:
    columns = ["image_id", "uri", "width", "height"]
    rows: pa.Table = manifest.read(shard.first_row, shard.rows, columns)
    return [
        EncodedImage(**row, boxes=boxes_by_image[row["image_id"]][:max_boxes])
        for row in rows.to_pylist()
    ]
