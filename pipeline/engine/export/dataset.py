"""What an export needs to know about its inputs before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline import run_record, schema, storage, uris
from pipeline.analysis.manifest_join import require_column
from pipeline.annotated_classes import list_annotated_classes
from pipeline.errors import UnreadableDataset
from pipeline.exports.box_selection import join_classes
from pipeline.exports.coco import list_category_ids
from pipeline.exports.coco_ids import number_images
from pipeline.exports.construction import DatasetFacts
from pipeline.exports.image_root import find_image_root, strip_secrets
from pipeline.exports.yolo import name_labels
from pipeline.manifests import Manifest
from pipeline.runs.cut_planning import choose_shard_size
from pipeline.shards import Cut, Parts, cut_manifest

_BLOCK = 8 << 20


def read_facts(manifest: Manifest, parts: Parts | None) -> DatasetFacts:
    """Classes, category ids, image folder and detector of an export's inputs.

    Raises:
        UnreadableDataset: the parts hold no detections, or there are neither detections nor annotations.
    """
    if parts is None:
        annotated: tuple[str, ...] = list_annotated_classes(manifest, manifest.rows)
        classes, model_version = annotated, None
    else:
        detected = schema.read_classes(require_column(parts, "detections", "detect"), parts.uri)
        if detected is None:
            raise UnreadableDataset(
                f"{uris.redact_uri(parts.uri)}: the parts do not list the checkpoint's classes"
            )
        annotated = manifest.classes or ()
        classes, model_version = join_classes(annotated, detected), _name_model(parts)
    category_ids = list_category_ids(classes, annotated, manifest.category_ids)
    root = find_image_root(
        strip_secrets(batch.column("uri")) for batch in manifest.read_batches(["uri"])
    )
    return DatasetFacts(classes, category_ids, root, model_version)


def _name_model(parts: Parts) -> str:
    """The start of the checkpoint's digest, or of the run's fingerprint if run.json names no checkpoint."""
    record = run_record.read_record(parts.uri)
    checkpoint = record.settings.get("checkpoint") if record else None
    return str(checkpoint or parts.fingerprint or "detections")[:12]


def cut_export(manifest: Manifest, parts: Parts | None) -> Cut:
    """The shards of an export: those of the detections, or the manifest by size.

    Raises:
        UnreadableDataset: the detections are of more images than the manifest has; ids are null or repeated.
    """
    if parts is None:
        return cut_manifest(manifest, choose_shard_size(manifest.rows))
    if parts.rows > manifest.rows:
        raise UnreadableDataset(
            f"{uris.redact_uri(parts.uri)} has {parts.rows} images, the manifest "
            f"{uris.redact_uri(manifest.uri)} only {manifest.rows}: it was made from another manifest"
        )
    return cut_manifest(manifest, [shard.rows for shard in parts.shards], parts.rows)


def number_manifest(manifest: Manifest) -> NDArray[np.int64]:
    """COCO's ids of all images of a manifest."""
    return number_images(_read_ids(manifest))


def _read_ids(manifest: Manifest) -> Iterator[list[str]]:
    for batch in manifest.read_batches(["image_id"]):
        yield batch.column("image_id").to_pylist()


def digest_manifest(manifest: Manifest) -> str:
    """A digest of the bytes of a manifest's files: any change of a row is another export."""
    digest = hashlib.sha256()
    for listed in manifest.files:
        with storage.open_file(listed.uri) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def digest_parts(parts: Parts) -> str:
    """A digest of the names and sizes of parts; `--retry-failed` changes a part, but not its name."""
    sizes = storage.list_sizes(parts.uri)
    digest = hashlib.sha256()
    for shard in parts.shards:
        digest.update(f"{shard.part_name} {sizes.get(shard.part_name, 0)}\n".encode())
    return digest.hexdigest()


def measure_parts(parts: Parts) -> int:
    """Bytes of all parts."""
    sizes = storage.list_sizes(parts.uri)
    return sum(sizes.get(shard.part_name, 0) for shard in parts.shards)


def check_label_names(manifest: Manifest, root: str | None, rows: int) -> None:
    """Reject images that would share a file of YOLO labels; takes 8 bytes of memory per image.

    Raises:
        UnreadableDataset: names two such images.
    """
    hashes = np.fromiter((hash(name) for name, _ in _iterate_names(manifest, root, rows)), np.int64)
    hashes.sort()
    repeated = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not repeated:
        return
    first_ids: dict[str, str] = {}
    for name, image_id in _iterate_names(manifest, root, rows):
        if hash(name) in repeated:
            first = first_ids.setdefault(name, image_id)
            if first != image_id:
                raise UnreadableDataset(
                    f"images {first!r} and {image_id!r} would share the file labels/{name}.txt: YOLO needs "
                    "image files whose names differ without their endings"
                )


def _iterate_names(manifest: Manifest, root: str | None, rows: int) -> Iterator[tuple[str, str]]:
    for batch in manifest.read_batches(["image_id", "uri"], rows):
        image_uris = strip_secrets(batch.column("uri")).to_pylist()
        for image_id, uri in zip(batch.column("image_id").to_pylist(), image_uris, strict=True):
            yield name_labels(uri, image_id, root), image_id
