"""Proposals that others made, brought into an output of `propose`, and such an output taken to others.

Neither needs Ray: what takes time is one file that has to be read, or written, as a whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import manifests, schema, shards, storage
from pipeline.engine.propose.run import proposals_table
from pipeline.errors import InvalidConfiguration, MismatchedProposals, UnreadableDataset
from pipeline.manifests import Manifest
from pipeline.proposals.interchange import (
    ImageProposals,
    read_detectron2_pickle,
    read_girshick_mat,
    write_detectron2_pickle,
)
from pipeline.run_record import RunRecord
from pipeline.runs import output
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.shards import Shard

Format = Literal["mat", "pkl"]

READERS: Mapping[Format, Callable[[str], Iterator[ImageProposals]]] = {
    "mat": read_girshick_mat,
    "pkl": read_detectron2_pickle,
}
"""Girshick's `.mat` and detectron2's `.pkl`."""

SHARD_SIZE = 256
OUTSIDE = 1.0
"""Pixels by which a box may reach over its image: some tools count both ends."""


@dataclass(frozen=True)
class Exchanged:
    """What went from one form to the other."""

    images: int
    boxes: int
    left_out: int
    """Images of the source that are not in what was written."""


def format_of(uri: str) -> Format:
    """The format that a file's name tells.

    Raises:
        InvalidConfiguration: it ends in neither .mat nor .pkl.
    """
    for name in READERS:
        if uri.lower().endswith(f".{name}"):
            return name
    raise InvalidConfiguration(
        f"{storage.shown(uri)} is neither a .mat (Girshick's selective search boxes) nor a .pkl "
        "(detectron2's proposals)"
    )


def import_proposals(
    source_uri: str,
    manifest_uri: str,
    output_uri: str,
    *,
    max_boxes: int | None = None,
    overwrite: bool = False,
) -> Exchanged:
    """Write a file's boxes for a manifest's images as `propose` writes its own.

    Args:
        source_uri: a `.mat` or `.pkl` file; its names are the manifest's image ids.
        manifest_uri: the images; those that the file has besides are left out.
        output_uri: folder for the parts.
        max_boxes: at most so many boxes per image, the first ones.
        overwrite: remove what an earlier run wrote there and start anew.

    Raises:
        MismatchedProposals: an image of the manifest is not in the file, or a box lies outside its image.
        MismatchedOutput: the output holds something else.
        UnreadableDataset: the file is damaged or of another kind, or names an image twice.
        StorageError: a store fails.
    """
    source_uri, target = storage.absolute(source_uri), storage.absolute(output_uri)
    kind = format_of(source_uri)
    opened = manifests.open_manifest(manifest_uri)
    storage.check_writable(target)
    known = _by_image(source_uri, kind)
    _check_complete(source_uri, known, opened)
    provenance = {
        "algorithm": "imported",
        "format": kind,
        "digest": hashlib.sha256(storage.read(source_uri)).hexdigest(),
        "max_boxes": max_boxes,
    }
    options = RunOptions(shard_size=SHARD_SIZE, overwrite=overwrite)
    cut = output.plan_cut(opened, target, options)
    record = RunRecord(
        "propose",
        {"dataset": cut.dataset, "proposals": provenance},
        {"manifest": storage.shown(opened.uri), "source": storage.shown(source_uri)},
    )
    ready = output.open_run(target, record, cut, options)
    boxes = 0
    for shard in ready.shards:
        encoded_images = _images(source_uri, opened, shard, known, max_boxes)
        boxes += sum(len(p.boxes) for p in encoded_images if p.boxes is not None)
        if shard.ordinal not in ready.committed:
            table = proposals_table(encoded_images, provenance, record.fingerprint)
            shards.put_part(target, shard, table)
    done = Exchanged(opened.rows, boxes, len(known) - opened.rows)
    ready.finish({"images": done.images, "images_failed": 0, "boxes": done.boxes})
    return done


def export_proposals(proposals_uri: str, target_uri: str) -> Exchanged:
    """Write an output of `propose` as detectron2's pickle; images that failed are left out.

    Raises:
        UnreadableDataset: the output is incomplete or holds no proposals.
        InvalidConfiguration: the target does not end in .pkl.
        StorageError: a store fails.
    """
    target = storage.absolute(target_uri)
    if format_of(target) != "pkl":
        raise InvalidConfiguration(f"{storage.shown(target)}: only .pkl files are written")
    parts = shards.open_parts(proposals_uri)
    if "boxes" not in parts.schema().names:
        raise UnreadableDataset(f"{storage.shown(parts.uri)} has no column boxes: no propose run")
    counts: Counter[str] = Counter()

    def found() -> Iterator[ImageProposals]:
        for table in parts.tables(["image_id", "boxes", "status"]):
            columns = [table[name].to_pylist() for name in ("image_id", "status")]
            for image_id, status, boxes in zip(
                *columns, schema.box_arrays(table["boxes"]), strict=True
            ):
                if status == "ok":
                    counts["boxes"] += len(boxes)
                    yield ImageProposals(image_id, boxes, None)
                else:
                    counts["failed"] += 1

    written = write_detectron2_pickle(target, found())
    return Exchanged(written, counts["boxes"], counts["failed"])


def _by_image(uri: str, kind: Format) -> dict[str, NDArray[np.float32]]:
    known: dict[str, NDArray[np.float32]] = {}
    for image_id, boxes, _ in READERS[kind](uri):
        if image_id in known:
            raise UnreadableDataset(f"{storage.shown(uri)} names image {image_id!r} twice")
        known[image_id] = boxes
    return known


def _check_complete(uri: str, known: Mapping[str, Any], manifest: Manifest) -> None:
    missing, first = 0, None
    for batch in manifest.batches(["image_id"]):
        for image_id in batch.column("image_id").to_pylist():
            if image_id not in known:
                missing, first = missing + 1, first or image_id
    if missing:
        raise MismatchedProposals(
            f"{storage.shown(uri)} has no boxes for {missing} of the {manifest.rows} images of "
            f"{storage.shown(manifest.uri)}, the first is {first!r}; it names images like "
            f"{next(iter(known), 'none at all')!r}"
        )


def _images(
    uri: str,
    manifest: Manifest,
    shard: Shard,
    known: Mapping[str, NDArray[np.float32]],
    max_boxes: int | None,
) -> list[EncodedImage]:
    columns = ["image_id", "uri", "width", "height"]
    rows: pa.Table = manifest.read(shard.first_row, shard.rows, columns)
    encoded_images = []
    for row in rows.to_pylist():
        boxes = known[row["image_id"]][:max_boxes]
        for side, last in (("width", 2), ("height", 3)):
            size = row[side]
            beyond = boxes[:, last].max(initial=0) if size is not None else 0
            if beyond > (size or 0) + OUTSIDE or boxes.min(initial=0) < -OUTSIDE:
                raise MismatchedProposals(
                    f"{storage.shown(uri)}: a box of image {row['image_id']!r} lies outside the image, "
                    f"which is {row['width']}x{row['height']}: were they made at another size?"
                )
        encoded_images.append(EncodedImage(**row, boxes=boxes))
    return encoded_images
