"""Detects in real images from a real object store on two raylets, and kills one of them meanwhile.

    python -m tests.chaos.swift_voc --data VOCdevkit/VOC2007 --splits devtrain devval

Uploads the images to an OpenStack Swift, runs the detect job on them through its S3 API, which also
computes the proposals, and kills one of the two nodes after a third of the shards. Then checks that every
image is there once and that the first ones equal an undisturbed run of these images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pipeline import storage
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import open_manifest
from pipeline.sources.voc import open_voc
from tests.chaos import outputs
from tests.chaos.raylets import Raylets
from tests.chaos.stage import BUCKET, ROOT, Inputs, Stage
from tests.engine.drawn_images import write_random_checkpoint
from tests.swift import Swift, apply_environment, find_free_port, forget_clients, make_environment

SETTINGS = ("--strategy", "fast", "--precision", "fp32", "--score-threshold", "0.0")
SHARD_SIZE = ("--shard-size", "16", "--max-per-image", "20")


def main() -> int:
    """Run the job and print the figures; return 0 if all images are right."""
    parser = argparse.ArgumentParser(
        prog="tests.chaos.swift_voc", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--data", required=True, help="a VOC year: JPEGImages, Annotations, ImageSets"
    )
    parser.add_argument("--splits", nargs="+", default=["devtrain", "devval"])
    parser.add_argument("--checkpoint", help="a local checkpoint; by default a small random one")
    parser.add_argument("--limit", type=int, help="number of images; all by default")
    parser.add_argument(
        "--compared", type=int, default=160, help="number of images of the undisturbed run"
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        result = _run(options, _set_up_stage(options, stack))
    print(json.dumps(result, indent=2))
    return 0 if result["right"] else 1


def _set_up_stage(options: argparse.Namespace, stack: contextlib.ExitStack) -> Stage:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swift-voc-")))
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("PYTHONPATH", str(ROOT))
    port = find_free_port()
    environment = make_environment(port)
    stack.enter_context(Swift(port, environment["AWS_SECRET_ACCESS_KEY"]))
    apply_environment(environment, patch)
    forget_clients()
    cluster = stack.enter_context(Raylets())
    for _ in range(2):
        cluster.add_node()
    checkpoint = options.checkpoint or write_random_checkpoint(folder)
    return Stage(folder, cluster, [], _upload(options, checkpoint))


def _upload(options: argparse.Namespace, checkpoint: str) -> Inputs:
    began = monotonic()
    datasets = [open_voc(options.data, split) for split in options.splits]
    rows = [row for dataset in datasets for row in dataset.rows][: options.limit]
    store, _ = storage.get_filesystem(f"s3://{BUCKET}")
    store.mkdir(BUCKET)
    uris = [f"s3://{BUCKET}/images/{Path(row.uri).name}" for row in rows]
    store.put([row.uri for row in rows], uris)
    store.put(checkpoint, f"s3://{BUCKET}/checkpoint", recursive=True)
    moved = [replace(row, uri=uri) for row, uri in zip(rows, uris, strict=True)]
    manifest = f"s3://{BUCKET}/manifest.parquet"
    write_manifest(manifest, moved, datasets[0].classes)
    print(f"{len(rows)} images uploaded in {monotonic() - began:.0f} s", flush=True)
    return Inputs(manifest, f"s3://{BUCKET}/checkpoint", f"s3://{BUCKET}")


def _run(options: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    images = open_manifest(stage.local.manifest).rows
    compared = min(options.compared, images)
    settings = (*SETTINGS, *SHARD_SIZE)
    undisturbed = stage.start_job(
        stage.locate_output("undisturbed"), "--limit", str(compared), settings=settings
    )
    if undisturbed.wait():
        raise RuntimeError(undisturbed.read_log()[-3000:])
    began = monotonic()
    driver = stage.start_job(stage.locate_output("detections"), settings=settings)
    before = driver.wait_for_parts(images // 16 // 3)
    stage.cluster.kill_node(stage.cluster.nodes[-1])
    struck = monotonic() - began
    code = driver.wait()
    seconds = monotonic() - began
    print(driver.read_log(), flush=True)
    ids = open_manifest(stage.local.manifest).read(0, images, ["image_id"])["image_id"].to_pylist()
    rows = outputs.read_rows(driver.output)
    compared_ids = set(ids[:compared])
    difference = outputs.compare_rows(
        [row for row in rows if row["image_id"] in compared_ids],
        outputs.read_rows(undisturbed.output),
    )
    after = outputs.list_parts(driver.output)
    figures = {
        "images": images,
        "rows": len(rows),
        "each once": sorted(row["image_id"] for row in rows) == sorted(ids),
        "failed": sum(row["status"] == "failed" for row in rows),
        "detections": sum(len(row["detections"] or ()) for row in rows),
        "compared": compared,
        "differing": len(difference.differing),
        "node killed after s": round(struck),
        "shards committed then": len(before),
        "of them written again": sum(after[name] != stamp for name, stamp in before.items()),
        "exit code": code,
        "seconds": round(seconds),
        "images/s": round(images / seconds, 2),
        "cores": os.cpu_count(),
    }
    is_right = figures["each once"] and not (code or figures["failed"] or difference.differing)
    return figures | {"right": bool(is_right)}


if __name__ == "__main__":
    sys.exit(main())
