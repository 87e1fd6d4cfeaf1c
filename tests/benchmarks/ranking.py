"""Rankings of proposals, on the same images in one run: how good the first n boxes are, and their cost.

python -m tests.benchmarks.ranking --manifest devval.parquet --json ranking.json

Recall@0.5 and the mean best IoU over the objects that are not difficult, of the first n boxes, for each
strategy in the authors' order and in the learned one. Every row is compared with the first (`fast` in the
authors' order) by a paired bootstrap over images. CPU milliseconds are of one thread: the best of
`--repeats` runs per image, all ways taking turns, averaged over images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from pipeline import geometry, imaging, storage
from pipeline.manifests import open_manifest
from pipeline.proposals import derive_image_seed, selective_search, warm_up_kernels
from pipeline.proposals.ranking_choice import choose_ranking, load_ranking

COUNTS = (50, 100, 200, 300, 500, 1000, 2000)
"""The numbers n of first boxes."""
Way = tuple[str, str]
"""A strategy, and a ranking."""


def main() -> None:
    """Measure, print the tables and write the JSON."""
    options = _parse_options()
    ways = [("fast", "authors")]
    for strategy in options.strategies:
        for ranking in ("authors", options.ranking):
            if (strategy, ranking) not in ways:
                ways.append((strategy, ranking))
    for way in ways:
        warm_up_kernels(*way)
    measured = measure_ways(ways, options.manifest, options.limit, options.repeats)
    result = build_result(ways, *measured)
    print_result(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="annotated images, in files of their own")
    parser.add_argument("--limit", type=int, help="number of images; all by default")
    parser.add_argument("--strategies", nargs="+", default=["fast", "lean", "balanced", "wide"])
    parser.add_argument("--ranking", default="learned", help="learned, or a model of jobs/rank.py")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per image and way")
    parser.add_argument("--json", type=Path, help="output file for the figures")
    return parser.parse_args()


def read_images(
    manifest_uri: str, limit: int | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield id, image uint8 `(H, W, 3)` and objects that are not difficult `(G, 4)`."""
    manifest = open_manifest(manifest_uri)
    for batch in manifest.read_batches(["image_id", "uri", "objects"], limit):
        for row in batch.to_pylist():
            objects = [
                [o[corner] for corner in ("x1", "y1", "x2", "y2")]
                for o in row["objects"]
                if not o["difficult"]
            ]
            image = imaging.decode_image(storage.read(row["uri"]))
            yield row["image_id"], image, np.array(objects, np.float32).reshape(-1, 4)


def measure_ways(
    ways: Sequence[Way], manifest_uri: str, limit: int | None, repeats: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Search every image in every way.

    Returns:
        Best IoU `(ways, objects, counts)` of each object with the first n boxes; the image of each object;
        seconds `(ways, images)`; boxes `(ways, images)`.
    """
    best, owners, seconds, boxes = [], [], [], []
    models = {way: load_ranking(choose_ranking(way[1], way[0])) or "authors" for way in ways}
    for number, (image_id, image, objects) in enumerate(read_images(manifest_uri, limit)):
        seed = derive_image_seed(0, image_id)
        spent = np.full(len(ways), np.inf)
        proposals: list[np.ndarray] = []
        for repeat in range(repeats):
            for index, way in enumerate(ways):
                begin = process_time()
                way_boxes = selective_search(image, way[0], seed, ranking=models[way])
                spent[index] = min(spent[index], process_time() - begin)
                if repeat == 0:
                    proposals.append(way_boxes)
        seconds.append(spent)
        boxes.append([len(way_boxes) for way_boxes in proposals])
        best.append(np.stack([find_best(way_boxes, objects) for way_boxes in proposals]))
        owners += [number] * len(objects)
        if (number + 1) % 50 == 0:
            print(f"{number + 1} images", flush=True)
    return np.concatenate(best, axis=1), np.array(owners), np.array(seconds).T, np.array(boxes).T


def find_best(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The best IoU `(objects, counts)` of each object with the first n boxes; 0 without boxes."""
    if not len(boxes) or not len(objects):
        return np.zeros((len(objects), len(COUNTS)))
    best = np.maximum.accumulate(geometry.iou(objects, boxes), axis=1)
    return best[:, [min(count, len(boxes)) - 1 for count in COUNTS]]


def build_result(
    ways: Sequence[Way],
    best: np.ndarray,
    owners: np.ndarray,
    seconds: np.ndarray,
    boxes: np.ndarray,
) -> dict[str, Any]:
    """The figures of all ways, and their differences from the first with 95 % intervals."""
    images = seconds.shape[1]
    rows = []
    for index, (strategy, ranking) in enumerate(ways):
        recall, overlap = best[index] >= 0.5, best[index]
        rows.append(
            {
                "strategy": strategy,
                "ranking": ranking,
                "cpu_ms": 1e3 * float(seconds[index].mean()),
                "boxes": float(boxes[index].mean()),
                "recall_50": recall.mean(axis=0).tolist(),
                "mean_best_iou": overlap.mean(axis=0).tolist(),
                "recall_50_change": bootstrap(recall - 1.0 * (best[0] >= 0.5), owners, images),
                "mean_best_iou_change": bootstrap(overlap - best[0], owners, images),
            }
        )
    return {"images": images, "objects": len(owners), "counts": list(COUNTS), "rows": rows}


def bootstrap(
    differences: np.ndarray, owners: np.ndarray, images: int, samples: int = 1000
) -> list[list[float]]:
    """For each count the mean of differences `(objects, counts)`, and its 95 % interval over images."""
    sums = np.zeros((images, differences.shape[1]))
    np.add.at(sums, owners, differences)
    objects = np.bincount(owners, minlength=images)
    weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), samples)
    means = (weights @ sums) / (weights @ objects)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return np.stack([differences.mean(axis=0), low, high], axis=1).tolist()


def print_result(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"\n{result['images']} images, {result['objects']} objects; recall@0.5 / mean best IoU")
    head = "".join(f"{f'first {count}':>15s}" for count in result["counts"])
    print(f"{'strategy, ranking':26s} CPU ms  boxes{head}")
    for row in result["rows"]:
        name = f"{row['strategy']}, {Path(row['ranking']).name}"
        pairs = zip(row["recall_50"], row["mean_best_iou"], strict=True)
        figures = "".join(f"    {recall:.3f}/{iou:.3f}" for recall, iou in pairs)
        print(f"{name:26s} {row['cpu_ms']:6.1f} {row['boxes']:6.0f}{figures}")
    first = result["rows"][0]
    print(f"\nchange from {first['strategy']} in the {first['ranking']}' order, 95 % intervals")
    for row in result["rows"][1:]:
        print(f"{row['strategy']}, {Path(row['ranking']).name}")
        for measure in ("recall_50", "mean_best_iou"):
            cells = "  ".join(
                f"{count}: {change:+.3f} ({low:+.3f} {high:+.3f})"
                for count, (change, low, high) in zip(
                    result["counts"], row[f"{measure}_change"], strict=True
                )
            )
            print(f"  {measure:14s} {cells}")
    costs = {
        (row["strategy"], row["ranking"] == "authors"): row["cpu_ms"] for row in result["rows"]
    }
    for strategy in dict.fromkeys(row["strategy"] for row in result["rows"]):
        if (strategy, False) in costs:
            ratio = costs[strategy, False] / costs[strategy, True] - 1
            print(
                f"{strategy}: the learned ranking costs {ratio:+.1%} of the search in the authors' order"
            )


if __name__ == "__main__":
    main()
