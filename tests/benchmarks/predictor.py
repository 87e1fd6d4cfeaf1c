"""The predictor against a plain loop of torchvision's parts: same checkpoint, same boxes, batch 1.

python -m tests.benchmarks.predictor --manifest devval.parquet --proposals proposals/devval \\
    --checkpoint checkpoint --json result.json

Both take turns, picture by picture, with the same number of threads, from the encoded bytes to the
detections. With --recipe in the place of --checkpoint the recipe's network gets random weights, which
is good for times but not for mAP. One thread is timed by its CPU clock, which other processes on the
machine disturb little; several by the wall clock.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch

from pipeline import schema, storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.flat import Detections as FlatDetections
from pipeline.analysis.flat import ground_truth
from pipeline.detector import checkpoint as checkpoints
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.checkpoint import Checkpoint
from pipeline.detector.predictor import Detections, Predictor
from pipeline.manifest import Manifest, open_manifest
from pipeline.proposals.stored import matching
from pipeline.training.recipes import named
from tests.benchmarks.network_arithmetic import Arithmetic, peak_gflops
from tests.benchmarks.plain_detector import PlainDetector
from tests.benchmarks.timed_predictor import TimedPredictor
from tests.detector.networks import random_model


def main() -> None:
    """Run both and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    manifest = open_manifest(options.manifest)
    checkpoint = (
        checkpoints.load(options.checkpoint)
        if options.checkpoint
        else random_checkpoint(options.recipe, tuple(manifest.classes or ("object",)))
    )
    result = compare(checkpoint, manifest, options)
    _print(result)
    if options.json:
        storage.put(storage.absolute(options.json), json.dumps(result, indent=2).encode())


def compare(
    checkpoint: Checkpoint, manifest: Manifest, options: argparse.Namespace
) -> dict[str, Any]:
    """Both on the same pictures in turns; the first picture warms up and is not timed."""
    clock = thread_time if options.threads == 1 else perf_counter
    plain = PlainDetector(checkpoint, max_rois=options.plain_rois)
    ours = TimedPredictor(Predictor(checkpoint, precision=options.precision), clock)
    arithmetic = Arithmetic(checkpoint.model)
    scores = [VocAveragePrecision(len(checkpoint.classes)) for _ in range(2)]
    spent = np.zeros((2, 2))  # plain, ours; by the clock, on the wall
    boxes_seen = 0
    for number, (encoded, boxes, truth) in enumerate(
        _pictures(manifest, options.proposals, checkpoint.classes, options.limit)
    ):
        for turn in (0, 1) if number % 2 else (1, 0):
            begin = np.array([clock(), perf_counter()])
            found = (plain, ours)[turn](encoded, boxes)
            if number > 0:
                spent[turn] += np.array([clock(), perf_counter()]) - begin
            scores[turn].update(truth, _flat(found))
        if number == 0:
            ours.seconds.clear()
        else:
            boxes_seen += len(boxes)
            arithmetic.add(ours.shape, ours.rois)
    timed = number
    milliseconds = 1e3 * spent / timed
    phases = {name: 1e3 * seconds / timed for name, seconds in ours.phases().items()}
    peak = peak_gflops(ours.predictor.dtype, clock)
    sides = []
    for row, average in zip(milliseconds, scores, strict=True):
        result = average.result()
        sides.append(
            {
                "ms_per_image": row[0],
                "wall_ms_per_image": row[1],
                "voc07_map50": float(np.nanmean(result.eleven_point)),
                "voc_map50": float(np.nanmean(result.area)),
            }
        )
    preprocessing = checkpoint.preprocessing
    return {
        "network": checkpoint.model.architecture.backbone,
        "picture_size": f"{preprocessing.short_side}/{preprocessing.max_side}",
        "images": timed,
        "threads": options.threads,
        "clock": "CPU" if clock is thread_time else "wall",
        "precision": str(ours.predictor.dtype).removeprefix("torch."),
        "plain_rois_at_once": options.plain_rois,
        "boxes_per_image": boxes_seen / timed,
        "rois_per_image": arithmetic.rois / timed,
        "plain": sides[0],
        "ours": sides[1],
        "ratio": float(milliseconds[0, 0] / milliseconds[1, 0]),
        "wall_ratio": float(milliseconds[0, 1] / milliseconds[1, 1]),
        "map_difference": 100 * (sides[1]["voc07_map50"] - sides[0]["voc07_map50"]),
        "ms_by_phase": phases,
        "peak_gflops": peak,
        "arithmetic": arithmetic.against(peak, timed, phases["trunk"], phases["head"]),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--proposals", required=True)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint")
    network.add_argument("--recipe", help="random weights in the network of this recipe")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--plain-rois", type=int, help="RoIs at once through the plain loop's head, by default all"
    )
    parser.add_argument("--json")
    return parser.parse_args()


def random_checkpoint(recipe_name: str, classes: tuple[str, ...]) -> Checkpoint:
    """The network of a recipe at the recipe's picture size, with random weights."""
    recipe = named(recipe_name)
    preprocessing = replace(
        BACKBONES[recipe.network].preprocessing,
        short_side=recipe.short_sides[len(recipe.short_sides) // 2],
        max_side=recipe.max_side,
    )
    return Checkpoint(random_model(recipe.network, classes=classes), preprocessing)


def _pictures(
    manifest: Manifest, proposals: str, classes: tuple[str, ...], limit: int
) -> Iterator[tuple[bytes, np.ndarray, Any]]:
    """Encoded bytes, proposals and annotated objects of each picture."""
    stored = matching(proposals, manifest, limit)
    first = 0
    for ordinal, rows in enumerate(stored.rows):
        table = manifest.read(first, rows, ["uri", "objects"])
        boxes = schema.box_arrays(stored.table(ordinal)["boxes"])
        for row, uri in enumerate(table["uri"].to_pylist()):
            truth = ground_truth(table["objects"].slice(row, 1), classes)
            yield storage.read(uri), np.array(boxes[row]), truth
        first += rows


def _flat(found: Detections) -> FlatDetections:
    """One picture's detections as the score takes them."""
    picture = np.zeros(len(found.scores), np.int64)
    boxes = found.boxes.astype(np.float64)
    return FlatDetections(picture, found.labels.astype(np.int64), found.scores, boxes)


def _print(result: dict[str, Any]) -> None:
    plain, ours = result["plain"], result["ours"]
    print(
        f"{result['network']} at {result['picture_size']}, {result['images']} pictures, "
        f"{result['boxes_per_image']:.0f} boxes each, {result['rois_per_image']:.0f} after joining; "
        f"{result['threads']} thread(s), {result['clock']} time"
    )
    for name, it in (("plain fp32 NCHW", plain), (f"ours, {result['precision']}", ours)):
        print(
            f"{name:16} {1e3 / it['ms_per_image']:6.2f} images/s {it['ms_per_image']:8.1f} ms per image "
            f"(wall {it['wall_ms_per_image']:.1f}), mAP {100 * it['voc07_map50']:.2f} (11 points), "
            f"{100 * it['voc_map50']:.2f} (area)"
        )
    print(
        f"ratio {result['ratio']:.2f} (wall {result['wall_ratio']:.2f}), "
        f"mAP {result['map_difference']:+.2f} points"
    )
    for name, milliseconds in result["ms_by_phase"].items():
        print(f"  {name:16} {milliseconds:8.1f} ms  {milliseconds / ours['ms_per_image']:6.1%}")
    print(f"peak {result['peak_gflops']:.0f} GFLOP/s in a matrix product of this dtype")
    for part, it in result["arithmetic"].items():
        print(
            f"  {part:6} {it['gflop_per_image']:7.1f} GFLOP per image, {it['gflops']:6.0f} GFLOP/s, "
            f"{it['of_peak']:.0%} of the peak"
        )


if __name__ == "__main__":
    main()
