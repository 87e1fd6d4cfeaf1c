"""Real images through a real object store on two raylets, one of which is killed on the way.

    python -m tests.chaos.swift_voc --data VOCdevkit/VOC2007 --splits devtrain devval

Uploads the images to an OpenStack Swift, runs the detect job on them through its S3 API with proposals
computed on the way, kills one of the two nodes at a third, and compares: every image once, the first
ones equal to an undisturbed run of just these.
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
from pipeline.manifests import open_manifest, write_manifest
from pipeline.sources.voc import open_voc
from tests.chaos import outputs
from tests.chaos.raylets import Raylets
from tests.chaos.stage import BUCKET, ROOT, Inputs, Stage
from tests.engine.drawn_images import random_checkpoint
from tests.swift import Swift, enter, environment_of, forget_clients, free_port

SETTINGS = ("--strategy", "fast", "--precision", "fp32", "--score-threshold", "0.0")
SHARD_SIZE = ("--shard-size", "16", "--max-per-image", "20")


def main() -> int:
    """Run it; the exit code says whether all was as it should be."""
    parser = argparse.ArgumentParser(
        prog="tests.chaos.swift_voc", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--data", required=True, help="a VOC year: JPEGImages, Annotations, ImageSets"
    )
    parser.add_argument("--splits", nargs="+", default=["devtrain", "devval"])
    parser.add_argument("--checkpoint", help="a local checkpoint; by default a small random one")
    parser.add_argument("--limit", type=int, help="only so many images")
    parser.add_argument("--compared", type=int, default=160, help="images of the undisturbed run")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        told = _run(options, _stage(options, stack))
    print(json.dumps(told, indent=2))
    return 0 if told["right"] else 1


def _stage(options: argparse.Namespace, stack: contextlib.ExitStack) -> Stage:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swift-voc-")))
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("PYTHONPATH", str(ROOT))
    port = free_port()
    environment = environment_of(port)
    stack.enter_context(Swift(port, environment["AWS_SECRET_ACCESS_KEY"]))
    enter(environment, patch)
    forget_clients()
    cluster = stack.enter_context(Raylets())
    for _ in range(2):
        cluster.join()
    checkpoint = options.checkpoint or random_checkpoint(folder)
    return Stage(folder, cluster, [], _uploaded(options, checkpoint))


def _uploaded(options: argparse.Namespace, checkpoint: str) -> Inputs:
    began = monotonic()
    datasets = [open_voc(options.data, split) for split in options.splits]
    rows = [row for dataset in datasets for row in dataset.rows][: options.limit]
    store, _ = storage.filesystem(f"s3://{BUCKET}")
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
    undisturbed = stage.start(
        stage.output("undisturbed"), "--limit", str(compared), settings=settings
    )
    if undisturbed.wait():
        raise RuntimeError(undisturbed.told()[-3000:])
    began = monotonic()
    driver = stage.start(stage.output("detections"), settings=settings)
    before = driver.await_parts(images // 16 // 3)
    stage.cluster.kill(stage.cluster.nodes[-1])
    struck = monotonic() - began
    code = driver.wait()
    seconds = monotonic() - began
    print(driver.told(), flush=True)
    ids = open_manifest(stage.local.manifest).read(0, images, ["image_id"])["image_id"].to_pylist()
    found = outputs.rows(driver.output)
    of_compared = set(ids[:compared])
    difference = outputs.difference(
        [row for row in found if row["image_id"] in of_compared], outputs.rows(undisturbed.output)
    )
    after = outputs.parts(driver.output)
    told = {
        "images": images,
        "rows": len(found),
        "each once": sorted(row["image_id"] for row in found) == sorted(ids),
        "failed": sum(row["status"] == "failed" for row in found),
        "detections": sum(len(row["detections"] or ()) for row in found),
        "compared": compared,
        "differing": len(difference.differing),
        "node killed after s": round(struck),
        "shards committed then": len(before),
        "of them written again": sum(after[name] != written for name, written in before.items()),
        "exit code": code,
        "seconds": round(seconds),
        "images/s": round(images / seconds, 2),
        "cores": os.cpu_count(),
    }
    right = told["each once"] and not (code or told["failed"] or difference.differing)
    return told | {"right": bool(right)}


if __name__ == "__main__":
    sys.exit(main())
