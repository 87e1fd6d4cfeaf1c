"""Scoring and diagnosing detections: from Parquet, with and without matches, beside hotcoco and pycocotools.

python -m tests.benchmarks.analysis [--peers]

Every side runs on one core, from files on the local disk to its numbers. Ours reads and checks every value of
the parts and of the manifest; the peers read COCO's JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import geometry, schema, shards, storage, uris
from pipeline.analysis.calibration import CalibrationCounts
from pipeline.analysis.confusion import ConfusionCounts
from pipeline.analysis.detection_arrays import flatten_detections, flatten_ground_truth
from pipeline.analysis.diagnostics import DiagnosticOptions, compute_diagnostics
from pipeline.analysis.evaluation import evaluate
from pipeline.analysis.image_facts import read_image_facts
from pipeline.analysis.manifest_join import join_manifest
from pipeline.analysis.match_table import build_matches, read_matches
from pipeline.analysis.tide import TideCounts
from pipeline.manifests import open_manifest
from tests.benchmarks.analysis_inputs import DrawnDataset, write_inputs

NAMES = (
    *("coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large"),
    *("coco_ar_1", "coco_ar_10", "coco_ar_100", "coco_ar_small", "coco_ar_medium", "coco_ar_large"),
)
RESULTS = ["width", "height", "status", "stage", "error_type", "detections"]
"""The columns of detections that diagnostics read."""


def main() -> None:
    """Write the inputs, score them by all sides, and print seconds, memory and differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections-per-image", type=int, default=97)
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many rounds counts")
    parser.add_argument("--peers", action="store_true", help="also run pycocotools, which is slow")
    options = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    dataset = DrawnDataset(options.images, options.classes, options.detections_per_image)
    with tempfile.TemporaryDirectory() as folder:
        manifest, detections = write_inputs(dataset, folder)
        print(
            f"{dataset.images} images, {dataset.images * dataset.detections_per_image} detections, "
            f"{dataset.classes} classes"
        )
        evaluate(detections, manifest)  # compiles or loads the kernels
        ours = _measure(
            "ours, from Parquet", lambda: evaluate(detections, manifest), options.repeats
        )
        _measure(
            "ours, matches written",
            lambda: _write_matches(detections, manifest, uris.join(folder, "matches")),
            options.repeats,
        )
        _measure_diagnostics(detections, manifest, uris.join(folder, "matches"), options.repeats)
        print(f"peak memory of the process so far: {_get_peak_memory():.2f} GB")
        truth, results = _write_coco_json(detections, manifest, dataset, Path(folder))
        for name, score, repeats in _list_peers(options):
            numbers = _measure(name, lambda score=score: score(truth, results), repeats)
            if numbers is not None:
                own = np.array([getattr(ours, key) for key in NAMES])
                print(f"  largest difference to ours: {np.abs(own - numbers).max():.1e}")


def _measure(name: str, call: Callable[[], Any], repeats: int) -> Any:
    seconds, cpu_seconds, value = [], [], None
    for _ in range(repeats):
        begin, cpu_begin = perf_counter(), process_time()
        value = call()
        seconds.append(perf_counter() - begin)
        cpu_seconds.append(process_time() - cpu_begin)
    print(f"{name}: {min(seconds):.2f} s, {min(cpu_seconds):.2f} CPU s", flush=True)
    return value


def _write_matches(detections: str, manifest: str, folder: str) -> None:
    """Match each shard and put its part, as a task of the analysis run does."""
    parts, annotated = shards.open_parts(detections), open_manifest(manifest)
    by_row = {shard.first_row: shard for shard in parts.shards}
    for batch in join_manifest(parts, annotated, ["detections"], images=2**31):
        shard = by_row[batch.first_row]
        table = build_matches(batch, annotated.classes or (), shard.ordinal)
        shards.put_part(folder, shard, table, one_row_per_image=False)


def _measure_diagnostics(detections: str, manifest: str, folder: str, repeats: int) -> None:
    """Measure the diagnostics from matches in memory: three of them, all, and all with intervals."""
    annotated = open_manifest(manifest)
    classes = annotated.classes or ()
    parts = [
        (
            read_matches(schema.parse_parquet(storage.read(uris.join(folder, name))), name),
            read_image_facts(batch.results, batch.first_row, batch.manifest),
            batch.results,
        )
        for name, batch in zip(
            storage.list_names(folder),
            join_manifest(shards.open_parts(detections), annotated, RESULTS, images=2**31),
            strict=True,
        )
    ]

    def diagnose_errors() -> None:
        counts = (TideCounts(classes), ConfusionCounts(classes, 0.5), CalibrationCounts(classes))
        for matches, _, _ in parts:
            for count in counts:
                count.update(matches)
        tide, confusion, calibration = counts
        tide.compute()
        confusion.compute(0.5)
        calibration.compute()

    _measure("TIDE, confusion and calibration", diagnose_errors, repeats)
    for name, resamples in (("all diagnostics", 0), ("the same, 1000 resamples", 1000)):
        chosen = DiagnosticOptions(resamples=resamples)
        _measure(name, lambda chosen=chosen: compute_diagnostics(parts, classes, chosen), repeats)


def _list_peers(options: argparse.Namespace) -> list[tuple[str, Callable[..., Any], int]]:
    peers: list[tuple[str, Callable[..., Any], int]] = [
        ("hotcoco, from JSON", _score_with_hotcoco, options.repeats)
    ]
    if options.peers:
        peers.append(("pycocotools, from JSON", _score_with_pycocotools, 1))
    return peers


def _score_with_hotcoco(truth: str, results: str) -> Any:
    try:
        from hotcoco import COCO, COCOeval
    except ImportError:
        print("skipped: hotcoco is not installed")
        return None
    coco = COCO(truth)
    return _summarize(COCOeval(coco, coco.load_res(results), "bbox"))


def _score_with_pycocotools(truth: str, results: str) -> Any:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        print("skipped: pycocotools is not installed")
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        return _summarize(COCOeval(coco, coco.loadRes(results), "bbox"))


def _summarize(evaluation: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.array(evaluation.stats)


def _write_coco_json(
    detections: str, manifest: str, dataset: DrawnDataset, folder: Path
) -> tuple[str, str]:
    """Write the same images as COCO's annotations and results."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    columns = ["detections"]
    for batch in join_manifest(shards.open_parts(detections), open_manifest(manifest), columns):
        objects = flatten_ground_truth(batch.manifest.column("objects"), dataset.labels)
        area = np.where(objects.difficult, -1.0, geometry.area(objects.boxes))
        for index, box in enumerate(geometry.to_xywh(objects.boxes).tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": int(objects.image[index]) + batch.first_row + 1,
                    "category_id": int(objects.class_id[index]) + 1,
                    "bbox": box,
                    "area": float(area[index]),
                    "iscrowd": int(objects.crowd[index]),
                }
            )
        found = flatten_detections(batch.results.column("detections"), dataset.labels)
        for index, box in enumerate(geometry.to_xywh(found.boxes).tolist()):
            results.append(
                {
                    "image_id": int(found.image[index]) + batch.first_row + 1,
                    "category_id": int(found.class_id[index]) + 1,
                    "bbox": box,
                    "score": float(found.scores[index]),
                }
            )
    truth = {
        "images": [{"id": i + 1, "width": 640, "height": 480} for i in range(dataset.images)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(dataset.labels)],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    return os.fspath(folder / "truth.json"), os.fspath(folder / "results.json")


def _get_peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
