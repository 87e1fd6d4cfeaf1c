"""The predictor against a plain loop of torchvision's parts: same checkpoint, same boxes, batch 1.

python -m tests.benchmarks.predictor --manifest devval.parquet --proposals proposals/devval \\
    --checkpoint checkpoint --json result.json

Both take turns, image by image, with the same number of threads, from the encoded bytes to the
detections. With --recipe in the place of --checkpoint the recipe's network gets random weights, which
is good for times but not for mAP. One thread is timed by its CPU clock, which other processes on the
machine disturb little; several by the wall clock.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import torch

from pipeline import schema, storage
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.flat import Detections as FlatDetections
from pipeline.analysis.flat import GroundTruth, ground_truth
from pipeline.detector import checkpoint as checkpoints
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.checkpoint import Checkpoint
from pipeline.detector.predictor import Detections, Predictor
from pipeline.manifests import Manifest, open_manifest
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


class Side:
    """What one of the two took and found."""

    def __init__(self, detector: Callable[[bytes, np.ndarray], Detections], classes: int) -> None:
        self.detector = detector
        self.scores = VocAveragePrecision(classes)
        self.spent = np.zeros(2)  # by the clock, on the wall

    def detect(
        self, encoded: bytes, boxes: np.ndarray, truth: GroundTruth, clock: Callable[[], float]
    ) -> None:
        begin = np.array([clock(), perf_counter()])
        found = self.detector(encoded, boxes)
        self.spent += np.array([clock(), perf_counter()]) - begin
        self.scores.update(truth, _flat(found))

    def result(self, images: int) -> dict[str, float]:
        by_class = self.scores.result()
        by_clock, on_wall = 1e3 * self.spent / images
        return {
            "ms_per_image": float(by_clock),
            "wall_ms_per_image": float(on_wall),
            "voc07_map50": float(np.nanmean(by_class.eleven_point)),
            "voc_map50": float(np.nanmean(by_class.area)),
        }


def compare(
    checkpoint: Checkpoint, manifest: Manifest, options: argparse.Namespace
) -> dict[str, Any]:
    """Both on the same images in turns; the first image warms up and is not timed."""
    clock = thread_time if options.threads == 1 else perf_counter
    ours = TimedPredictor(Predictor(checkpoint, precision=options.precision), clock)
    classes = len(checkpoint.classes)
    sides = [Side(PlainDetector(checkpoint, max_rois=options.plain_rois), classes)]
    sides.append(Side(ours, classes))
    arithmetic = Arithmetic(checkpoint.model)
    boxes_seen = 0
    for number, (encoded, boxes, truth) in enumerate(
        _images(manifest, options.proposals, checkpoint.classes, options.limit)
    ):
        for side in sides if number % 2 else sides[::-1]:
            side.detect(encoded, boxes, truth, clock)
        if number == 0:
            ours.seconds.clear()
            for side in sides:
                side.spent[:] = 0
        else:
            boxes_seen += len(boxes)
            arithmetic.add(ours.shape, ours.rois)
    timed = number
    phases = {name: 1e3 * seconds / timed for name, seconds in ours.phases().items()}
    peak = peak_gflops(ours.predictor.dtype, clock)
    plain, own = (side.result(timed) for side in sides)
    preprocessing = checkpoint.preprocessing
    return {
        "network": checkpoint.model.architecture.backbone,
        "image_size": f"{preprocessing.short_side}/{preprocessing.max_side}",
        "images": timed,
        "threads": options.threads,
        "clock": "CPU" if clock is thread_time else "wall",
        "precision": str(ours.predictor.dtype).removeprefix("torch."),
        "plain_rois_at_once": options.plain_rois,
        "boxes_per_image": boxes_seen / timed,
        "rois_per_image": arithmetic.rois / timed,
        "plain": plain,
        "ours": own,
        "ratio": plain["ms_per_image"] / own["ms_per_image"],
        "wall_ratio": plain["wall_ms_per_image"] / own["wall_ms_per_image"],
        "map_difference": 100 * (own["voc07_map50"] - plain["voc07_map50"]),
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
    options = parser.parse_args()
    if options.limit < 2:
        parser.error("--limit: at least 2 images, the first of which warms up")
    return options


def random_checkpoint(recipe_name: str, classes: tuple[str, ...]) -> Checkpoint:
    """The network of a recipe at the recipe's image size, with random weights."""
    recipe = named(recipe_name)
    preprocessing = replace(
        BACKBONES[recipe.network].preprocessing,
        short_side=recipe.short_sides[len(recipe.short_sides) // 2],
        max_side=recipe.max_side,
    )
    return Checkpoint(random_model(recipe.network, classes=classes), preprocessing)


def _images(
    manifest: Manifest, proposals: str, classes: tuple[str, ...], limit: int
) -> Iterator[tuple[bytes, np.ndarray, GroundTruth]]:
    """Encoded bytes, proposals and annotated objects of each image."""
    stored = matching(proposals, manifest, limit)
    first = 0
    for rows in stored.rows:
        table = manifest.read(first, rows, ["uri", "objects"])
        boxes = schema.box_arrays(stored.of(first, rows).table()["boxes"])
        for row, uri in enumerate(table["uri"].to_pylist()):
            truth = ground_truth(table["objects"].slice(row, 1), classes)
            yield storage.read(uri), np.array(boxes[row]), truth
        first += rows


def _flat(found: Detections) -> FlatDetections:
    """One image's detections as the score takes them."""
    image = np.zeros(len(found.scores), np.int64)
    boxes = found.boxes.astype(np.float64)
    return FlatDetections(image, found.labels.astype(np.int64), found.scores, boxes)


def _print(result: dict[str, Any]) -> None:
    plain, ours = result["plain"], result["ours"]
    print(
        f"{result['network']} at {result['image_size']}, {result['images']} images, "
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
