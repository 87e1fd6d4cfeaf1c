"""Small outputs of propose with image keys, whose boxes say which image and run they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import shards
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage, ListedImage, identify_content
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.runs.report import Failure
from pipeline.runs.tables import build_proposals_table
from pipeline.shards import Shard, cut_manifest

PROVENANCE = {"algorithm": "selective_search", "seed": 0}
FAILED = Failure("decode", "UnreadableImage", "truncated")


def write_images(folder: Path, names: Sequence[str], name: str = "manifest") -> Manifest:
    """Write a manifest of small files, which are written too if they do not exist yet."""
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for image in names:
        path = folder / "images" / image
        if not path.exists():
            path.write_bytes(image.encode() * 3)
        rows.append(ManifestRow(image, str(path), None, None, None))
    uri = str(folder / f"{name}.parquet")
    write_manifest(uri, rows, None)
    return open_manifest(uri)


def build_record(manifest: Manifest, size: int, **proposals: Any) -> RunRecord:
    """The record of a propose run over a manifest."""
    cut = cut_manifest(manifest, size)
    provenance = PROVENANCE | proposals
    settings = {"dataset": cut.dataset, "images": cut.images, "proposals": provenance}
    return RunRecord("propose", settings)


def open_output(folder: str, manifest: Manifest, size: int = 4) -> RunOutput:
    """Start an output without parts."""
    record = build_record(manifest, size)
    return open_run(folder, record, cut_manifest(manifest, size), RunOptions())


def list_images(manifest: Manifest, shard: Shard) -> list[ListedImage]:
    """A shard's images, as a worker lists them."""
    from pipeline.image_keys import compute_image_key

    table = manifest.read(shard.first_row, shard.rows, ["image_id", "uri"])
    return [
        ListedImage(
            row["image_id"],
            row["uri"],
            key=compute_image_key(row["image_id"], row["uri"], None, manifest.decoding),
        )
        for row in table.to_pylist()
    ]


def build_rows(
    images: Sequence[ListedImage], fingerprint: str, run: float, failed: Sequence[str] = ()
) -> pa.Table:
    """Rows of proposals; each has one box, which starts at the number of the run."""
    rows = []
    for image in images:
        data = Path(image.uri).read_bytes()
        encoded = EncodedImage(image.image_id, image.uri, 100, 100, key=image.key)
        encoded.content = identify_content(data)
        if image.image_id in failed:
            encoded.failure = FAILED
        encoded.boxes = np.array([[run, 0, 50, len(data)]], np.float32)
        rows.append(encoded)
    return build_proposals_table(rows, PROVENANCE, fingerprint)


def write_output(
    folder: str, manifest: Manifest, *, size: int = 4, run: float = 1.0, failed: Sequence[str] = ()
) -> RunOutput:
    """Write a finished output of propose."""
    ready = open_output(folder, manifest, size)
    for shard in ready.shards:
        images = list_images(manifest, shard)
        table = build_rows(images, ready.record.fingerprint, run, failed)
        shards.put_part(folder, shard, table)
    summary = {
        "images": ready.rows,
        "shards": len(ready.shards),
        "images_failed": len(failed),
        "failed": {"propose: UnreadableImage": len(failed)} if failed else {},
        "counts": {"proposals": ready.rows - len(failed)},
        "images_per_second": 12.5,
    }
    ready.finish(summary)
    return replace(ready, committed=frozenset(shard.ordinal for shard in ready.shards))
