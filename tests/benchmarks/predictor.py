"""The predictor against a plain loop of torchvision's parts: same checkpoint, same boxes, batch 1.

python -m tests.benchmarks.predictor --manifest devval.parquet --proposals proposals/devval \\
    --checkpoint checkpoint --json result.json

Both take turns, image by image, with the same number of threads, from the encoded bytes to the
detections. With --recipe instead of --checkpoint, the recipe's network gets random weights, which is
good for times but not for mAP. A single thread is timed by its CPU clock, which other processes hardly
disturb; several threads are timed by the wall clock.
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

from pipeline import schema, storage, uris
from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import (
    DetectionArrays,
    GroundTruthArrays,
    flatten_ground_truth,
)
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint
from pipeline.detector.predictor import ImageDetections, Predictor
from pipeline.manifests import Manifest, open_manifest
from pipeline.proposals.stored_proposals import open_stored_proposals
from pipeline.training.recipes import get_recipe
from tests.benchmarks.network_arithmetic import Arithmetic, measure_peak_gflops
from tests.benchmarks.plain_detector import PlainDetector
from tests.benchmarks.timed_predictor import TimedPredictor
from tests.detector.networks import build_random_network


def main() -> None:
    """Run both detectors and print a table."""
    options = _options()
    torch.set_num_threads(options.threads)
    manifest = open_manifest(options.manifest)
    trained = (
        load_checkpoint(options.checkpoint)
        if options.checkpoint
        else build_untrained_network(options.recipe, tuple(manifest.classes or ("object",)))
    )
    result = compare(trained, manifest, options)
    _print(result)
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


class Side:
    """One of the two detectors, with its time and its score."""

    def __init__(
        self, detector: Callable[[bytes, np.ndarray], ImageDetections], classes: int
    ) -> None:
        self.detector = detector
        self.scores = VocAveragePrecision(classes)
        self.spent = np.zeros(2)  # seconds of `clock`, seconds of wall time

    def detect(
        self,
        encoded: bytes,
        boxes: np.ndarray,
        truth: GroundTruthArrays,
        clock: Callable[[], float],
    ) -> None:
        begin = np.array([clock(), perf_counter()])
        detections = self.detector(encoded, boxes)
        self.spent += np.array([clock(), perf_counter()]) - begin
        self.scores.update(truth, _flatten(detections))

    def summarise(self, images: int) -> dict[str, float]:
        by_class = self.scores.compute()
        by_clock, on_wall = 1e3 * self.spent / images
        return {
            "ms_per_image": float(by_clock),
            "wall_ms_per_image": float(on_wall),
            "voc07_map50": float(np.nanmean(by_class.eleven_point)),
            "voc_map50": float(np.nanmean(by_class.area)),
        }


def compare(
    trained: TrainedNetwork, manifest: Manifest, options: argparse.Namespace
) -> dict[str, Any]:
    """Run both on the same images in turns; the first image warms up and is not timed."""
    clock = thread_time if options.threads == 1 else perf_counter
    predictor = TimedPredictor(Predictor(trained, precision=options.precision), clock)
    classes = len(trained.classes)
    sides = [Side(PlainDetector(trained, max_rois=options.plain_rois), classes)]
    sides.append(Side(predictor, classes))
    arithmetic = Arithmetic(trained.network)
    boxes_seen = 0
    for number, (encoded, boxes, truth) in enumerate(
        _iterate_images(manifest, options.proposals, trained.classes, options.limit)
    ):
        for side in sides if number % 2 else sides[::-1]:
            side.detect(encoded, boxes, truth, clock)
        if number == 0:
            predictor.seconds.clear()
            for side in sides:
                side.spent[:] = 0
        else:
            boxes_seen += len(boxes)
            arithmetic.add(predictor.shape, predictor.rois)
    images_timed = number
    phases = {
        name: 1e3 * seconds / images_timed for name, seconds in predictor.sum_phases().items()
    }
    peak = measure_peak_gflops(predictor.predictor.dtype, clock)
    plain, own = (side.summarise(images_timed) for side in sides)
    preprocessing = trained.preprocessing
    return {
        "network": trained.network.architecture.backbone,
        "image_size": f"{preprocessing.short_side}/{preprocessing.max_side}",
        "images": images_timed,
        "threads": options.threads,
        "clock": "CPU" if clock is thread_time else "wall",
        "precision": str(predictor.predictor.dtype).removeprefix("torch."),
        "plain_rois_at_once": options.plain_rois,
        "boxes_per_image": boxes_seen / images_timed,
        "rois_per_image": arithmetic.rois / images_timed,
        "plain": plain,
        "ours": own,
        "ratio": plain["ms_per_image"] / own["ms_per_image"],
        "wall_ratio": plain["wall_ms_per_image"] / own["wall_ms_per_image"],
        "map_difference": 100 * (own["voc07_map50"] - plain["voc07_map50"]),
        "ms_by_phase": phases,
        "peak_gflops": peak,
        "arithmetic": arithmetic.compare_with_peak(
            peak, images_timed, phases["trunk"], phases["head"]
        ),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="URI of the manifest")
    parser.add_argument("--proposals", required=True, help="URI of the stored proposals")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint", help="URI of the checkpoint")
    network.add_argument("--recipe", help="use the network of this recipe with random weights")
    parser.add_argument("--limit", type=int, default=400, help="number of images")
    parser.add_argument("--threads", type=int, default=1, help="threads of both detectors")
    parser.add_argument("--precision", default="auto", help="precision of the predictor")
    parser.add_argument(
        "--plain-rois", type=int, help="RoIs per call of the plain loop's head; all by default"
    )
    parser.add_argument("--json", help="output file for the figures")
    options = parser.parse_args()
    if options.limit < 2:
        parser.error("--limit: needs at least 2 images, because the first one warms up")
    return options


def build_untrained_network(recipe_name: str, classes: tuple[str, ...]) -> TrainedNetwork:
    """Build the network of a recipe at the recipe's image size, with random weights."""
    recipe = get_recipe(recipe_name)
    preprocessing = replace(
        BACKBONES[recipe.network].preprocessing,
        short_side=recipe.short_sides[len(recipe.short_sides) // 2],
        max_side=recipe.max_side,
    )
    return TrainedNetwork(build_random_network(recipe.network, classes=classes), preprocessing)


def _iterate_images(
    manifest: Manifest, proposals: str, classes: tuple[str, ...], limit: int
) -> Iterator[tuple[bytes, np.ndarray, GroundTruthArrays]]:
    """Yield the encoded bytes, proposals and ground truth of each image."""
    stored = open_stored_proposals(proposals, manifest, limit)
    first = 0
    for rows in stored.rows:
        table = manifest.read(first, rows, ["uri", "objects"])
        boxes = schema.split_box_column(stored.locate(first, rows).read_table()["boxes"])
        for row, uri in enumerate(table["uri"].to_pylist()):
            truth = flatten_ground_truth(table["objects"].slice(row, 1), classes)
            yield storage.read(uri), np.array(boxes[row]), truth
        first += rows


def _flatten(detections: ImageDetections) -> DetectionArrays:
    """Convert one image's detections into the form that the score takes."""
    image = np.zeros(len(detections.scores), np.int64)
    boxes = detections.boxes.astype(np.float64)
    return DetectionArrays(image, detections.labels.astype(np.int64), detections.scores, boxes)


def _print(result: dict[str, Any]) -> None:
    plain, optimised = result["plain"], result["ours"]
    print(
        f"{result['network']} at {result['image_size']}, {result['images']} images, "
        f"{result['boxes_per_image']:.0f} boxes each, {result['rois_per_image']:.0f} after joining; "
        f"{result['threads']} thread(s), {result['clock']} time"
    )
    for name, figures in (("plain fp32 NCHW", plain), (f"ours, {result['precision']}", optimised)):
        print(
            f"{name:16} {1e3 / figures['ms_per_image']:6.2f} images/s {figures['ms_per_image']:8.1f} "
            f"ms per image (wall {figures['wall_ms_per_image']:.1f}), mAP {100 * figures['voc07_map50']:.2f} "
            f"(11 points), {100 * figures['voc_map50']:.2f} (area)"
        )
    print(
        f"ratio {result['ratio']:.2f} (wall {result['wall_ratio']:.2f}), "
        f"mAP {result['map_difference']:+.2f} points"
    )
    for name, milliseconds in result["ms_by_phase"].items():
        print(
            f"  {name:16} {milliseconds:8.1f} ms  {milliseconds / optimised['ms_per_image']:6.1%}"
        )
    print(f"peak {result['peak_gflops']:.0f} GFLOP/s, measured with matrix products of this dtype")
    for part, figures in result["arithmetic"].items():
        print(
            f"  {part:6} {figures['gflop_per_image']:7.1f} GFLOP per image, {figures['gflops']:6.0f} "
            f"GFLOP/s, {figures['of_peak']:.0%} of the peak"
        )


if __name__ == "__main__":
    main()
