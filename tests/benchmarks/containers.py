"""Images in tar and Parquet files against one object per image, on the S3 store of the tests.

    python -m tests.benchmarks.containers --images 10000 --json FILE
    python -m tests.benchmarks.containers --manifest devtrain.parquet --checkpoint URI --json FILE

The first form draws small images and reads them all, shard by shard in one process, as a worker does: it
prints requests, seconds and images per second. The second takes the images of a manifest of local files, and
also detects in them, proposals included, from each layout; it exits with 1 unless all rows are equal, with
scores within 1e-3. Requests are counted by a proxy in front of the store.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import imaging, shards, storage
from pipeline.image_members import read_members
from pipeline.image_reader import ImageReader
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import Manifest, ManifestRow, open_manifest
from pipeline.sources.dataset import Dataset
from pipeline.sources.parquet_images import ParquetLayout, open_parquet_images
from pipeline.sources.webdataset import open_webdataset
from tests.chaos.proxy import FaultProxy
from tests.swift import Swift, apply_environment, find_free_port, forget_clients, make_environment

PER_FILE = 1000
"""Images of a tar or Parquet file."""
ROW_GROUP = 256
SHARD = 256
BUCKET = "containers"
LAYOUTS = ("objects", "tar", "parquet")


def main() -> int:
    """Measure the layouts, print the figures, and return 0 if all layouts give the same rows."""
    parser = argparse.ArgumentParser(
        prog="tests.benchmarks.containers", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--images", type=int, default=10_000, help="number of drawn images")
    parser.add_argument("--manifest", help="manifest of local images, instead of drawn ones")
    parser.add_argument("--checkpoint", help="detect with this checkpoint, too")
    parser.add_argument("--json", required=True, help="output file for the figures")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="containers-")))
        proxy = _start_store(stack)
        images = list(_read_images(options))
        manifests = _upload(folder, images, proxy)
        result: dict[str, Any] = {"images": len(images), "cores": os.cpu_count()}
        for layout in LAYOUTS:
            result[layout] = {"prepare_requests": manifests[layout][1], **manifests[layout][2]}
            result[layout] |= _measure_reading(proxy, open_manifest(manifests[layout][0]))
            print(layout, json.dumps(result[layout]), flush=True)
        is_right = True
        if options.checkpoint:
            uris = {layout: manifests[layout][0] for layout in LAYOUTS}
            result["rows"] = _compare_detections(uris, options.checkpoint)
            is_right = result["rows"]["differing"] == 0
            print(json.dumps(result["rows"]))
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if is_right else 1


def _start_store(stack: contextlib.ExitStack) -> FaultProxy:
    """Start the store with a proxy in front of it, to which the clients of this process connect."""
    port = find_free_port()
    proxy = stack.enter_context(FaultProxy(port))
    environment = make_environment(port)
    environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
    stack.enter_context(Swift(port, environment["AWS_SECRET_ACCESS_KEY"]))
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    apply_environment(environment, patch)
    forget_clients()
    storage.get_filesystem(f"s3://{BUCKET}")[0].mkdir(BUCKET)
    return proxy


def _read_images(options: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each image."""
    if options.manifest:
        for batch in open_manifest(options.manifest).read_batches(["uri"]):
            for uri in batch.column("uri").to_pylist():
                yield Path(uri).stem, storage.read(uri)
        return
    generator = np.random.default_rng(0)
    for number in range(options.images):
        noise = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        yield f"{number:08d}", imaging.encode_jpeg(imaging.resize(noise, 160, 120))


def _upload(
    folder: Path, images: Sequence[tuple[str, bytes]], proxy: FaultProxy
) -> dict[str, tuple[str, int, dict[str, float]]]:
    """Put the images in each layout; the manifest, the requests to make it, and the seconds."""
    store, _ = storage.get_filesystem(f"s3://{BUCKET}")
    parts = [images[first : first + PER_FILE] for first in range(0, len(images), PER_FILE)]
    for number, part in enumerate(parts):
        store.pipe({f"{BUCKET}/objects/{name}.jpg": data for name, data in part})
        storage.put(f"s3://{BUCKET}/tar/{number:05d}.tar", _pack_tar(part))
        storage.put(f"s3://{BUCKET}/parquet/{number:05d}.parquet", _pack_parquet(part))
    sizes = [imaging.read_size(data) for _, data in images]
    rows = (
        ManifestRow(name, f"s3://{BUCKET}/objects/{name}.jpg", *size, None)
        for (name, _), size in zip(images, sizes, strict=True)
    )
    plain = f"{folder}/objects.parquet"
    write_manifest(plain, rows, None)
    manifests: dict[str, tuple[str, int, dict[str, float]]] = {"objects": (plain, 0, {})}
    openers = {
        "tar": lambda: open_webdataset([f"s3://{BUCKET}/tar"]),
        "parquet": lambda: open_parquet_images(
            [f"s3://{BUCKET}/parquet"], ParquetLayout(id_column="name")
        ),
    }
    for layout, opener in openers.items():
        uri = f"{folder}/{layout}.parquet"
        before, began = proxy.requests, monotonic()
        dataset: Dataset = opener()
        write_manifest(uri, dataset.rows, None, has_members=True)
        seconds = {"prepare_seconds": round(monotonic() - began, 1)}
        manifests[layout] = uri, proxy.requests - before, seconds
    return manifests


def _pack_tar(images: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in images:
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _pack_parquet(images: Sequence[tuple[str, bytes]]) -> bytes:
    cells = [{"bytes": data, "path": f"{name}.jpg"} for name, data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind), "name": [name for name, _ in images]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=ROW_GROUP)
    return buffer.getvalue()


def _measure_reading(proxy: FaultProxy, manifest: Manifest) -> dict[str, float]:
    """Read all images, shard by shard, as one worker does."""
    before, began, size = proxy.requests, monotonic(), 0
    for first in range(0, manifest.rows, SHARD):
        count = min(SHARD, manifest.rows - first)
        table = manifest.read(first, count, manifest.image_columns)
        members = read_members(table, manifest.uri, first)
        reader = ImageReader(list(zip(table["uri"].to_pylist(), members, strict=True)))
        size += sum(len(reader.read(index)) for index in range(count))
    seconds = monotonic() - began
    return {
        "bytes": size,
        "requests": proxy.requests - before,
        "seconds": round(seconds, 2),
        "images_per_second": round(manifest.rows / seconds),
    }


def _compare_detections(manifests: dict[str, str], checkpoint: str) -> dict[str, Any]:
    """Detect from each layout in jobs of their own, and compare the rows with those of the objects."""
    root = Path(__file__).parents[2]
    rows: dict[str, list[dict[str, Any]]] = {}
    seconds = {}
    for layout, manifest in manifests.items():
        output = f"s3://{BUCKET}/detections-{layout}"
        command = [sys.executable, "jobs/detect.py", "--manifest", manifest, "--output", output]
        began = monotonic()
        subprocess.run([*command, "--checkpoint", checkpoint], cwd=root, check=True)
        seconds[layout] = round(monotonic() - began, 1)
        rows[layout] = [
            row for table in shards.open_parts(output).read_tables() for row in table.to_pylist()
        ]
    differing = sum(
        _differ(expected, row)
        for layout in LAYOUTS[1:]
        for expected, row in zip(rows["objects"], rows[layout], strict=True)
    )
    return {"images": len(rows["objects"]), "differing": differing, "job_seconds": seconds}


def _differ(expected: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether two rows differ in more than where the image lies, and scores within 1e-3."""
    names = expected.keys() - {"uri", "image_key", "detections"}  # the key holds the place
    first, second = expected["detections"] or [], row["detections"] or []
    if any(expected[name] != row[name] for name in names) or len(first) != len(second):
        return True
    return any(
        abs(a["score"] - b["score"]) > 1e-3 or a["label"] != b["label"]
        for a, b in zip(first, second, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
