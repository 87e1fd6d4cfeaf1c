"""Selective search against its peers, on the same images in one run.

python -m tests.benchmarks.selective_search --images DIR --annotations DIR --list FILE --json FILE

CPU seconds are of one thread, medians over images; the methods take turns on each image, so that a
busy machine slows all alike. Recall and MABO leave objects marked difficult out; every method's boxes
have the same least side and no duplicates. Slow methods do the first `--slow-limit` images, and a
second table compares all methods on just those.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from pipeline import geometry, imaging
from pipeline.proposals import selective_search, warm_up
from pipeline.sources.voc_xml import parse_annotation
from tests.benchmarks.proposal_methods import Method, methods, versions
from tests.benchmarks.proposal_phases import phases
from tests.benchmarks.proposal_worker import measured

Record = dict[str, Any]


def main() -> None:
    """Measure, print the tables, write the JSON."""
    options = _options()
    names = Path(options.list).read_text().split()[: options.limit]
    images = [imaging.decode((options.images / f"{n}.jpg").read_bytes()) for n in names]
    objects = [_objects(options.annotations / f"{name}.xml") for name in names]
    warm = {name: warm_up(name) for name in ("single", "fast", "quality")}
    wanted = [
        method
        for method in methods(options.min_side)
        if not options.only or any(part in method.name for part in options.only)
    ]
    records = _compare(wanted, images, objects, options.slow_limit)
    few = min(options.slow_limit, len(names))
    result = {
        "images": len(names),
        "min_side": options.min_side,
        "versions": versions(),
        "warm_up_seconds": warm,
        "all_images": _table([m for m in wanted if not m.slow], records, len(names)),
        "slow_images": few,
        "first_images": _table(wanted, records, few),
        "phases_ms": {s: phases(images[:30], s) for s in ("fast", "quality")},
        "scaling": _scaling(images[0]),
        "worker": [measured(side) for side in (500, 1000, 2000)],
        "cold_worker": measured(500, "quality", cold=True),
    }
    _print(result)
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of NAME.jpg")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of NAME.xml (VOC)")
    parser.add_argument("--list", required=True, help="file of names, one a line")
    parser.add_argument("--json", required=True, help="where the figures go")
    parser.add_argument("--limit", type=int, help="the first so many images; all by default")
    parser.add_argument("--slow-limit", type=int, default=20, help="images for slow methods")
    parser.add_argument("--min-side", type=int, default=20, help="for every method's boxes")
    parser.add_argument("--only", nargs="*", help="methods with one of these in their name")
    return parser.parse_args()


def _objects(path: Path) -> list[tuple[str, list[float]]]:
    parsed = parse_annotation(path.read_bytes(), str(path))
    return [(o.label, [o.x1, o.y1, o.x2, o.y2]) for o in parsed.objects if not o.difficult]


def _compare(
    wanted: list[Method], images: list, objects: list, slow_limit: int
) -> dict[str, list[Record]]:
    records: dict[str, list[Record]] = defaultdict(list)
    begin = perf_counter()
    for number, (image, annotated) in enumerate(zip(images, objects, strict=True)):
        for method in wanted:
            if method.slow and number >= slow_limit:
                continue
            started = process_time()
            found = method.propose(image)
            seconds = process_time() - started
            records[method.name].append(_record(found, annotated, seconds))
        if (number + 1) % 10 == 0:
            print(f"{number + 1} images, {perf_counter() - begin:.0f} s", flush=True)
    return records


def _record(found: np.ndarray, annotated: list, seconds: float) -> Record:
    labels = [label for label, _ in annotated]
    corners = np.array([box for _, box in annotated], np.float32).reshape(-1, 4)
    overlaps = geometry.iou(corners, found) if len(found) else np.zeros((len(corners), 1))
    return {
        "seconds": seconds,
        "boxes": len(found),
        "labels": labels,
        "best": overlaps.max(axis=1),
        "best_2000": overlaps[:, :2000].max(axis=1),
    }


def _table(wanted: list[Method], records: dict[str, list[Record]], count: int) -> list[Record]:
    rows = []
    for method in wanted:
        chosen = records[method.name][:count]
        best = np.concatenate([record["best"] for record in chosen])
        best_2000 = np.concatenate([record["best_2000"] for record in chosen])
        labels = np.array([label for record in chosen for label in record["labels"]])
        seconds = float(np.median([record["seconds"] for record in chosen]))
        rows.append(
            {
                "method": method.name,
                "cpu_seconds": seconds,
                "images_per_second": len(chosen) / sum(record["seconds"] for record in chosen),
                "boxes": float(np.median([record["boxes"] for record in chosen])),
                "recall_50": float((best >= 0.5).mean()),
                "recall_50_of_2000": float((best_2000 >= 0.5).mean()),
                "recall_70": float((best >= 0.7).mean()),
                "mabo": float(np.mean([best[labels == c].mean() for c in np.unique(labels)])),
            }
        )
    return rows


def _scaling(image: np.ndarray) -> list[Record]:
    rows = []
    for side in (250, 500, 1000, 2000):
        scaled = np.ascontiguousarray(imaging.resize(image, side, side))
        seconds = []
        for _ in range(3):
            begin = process_time()
            selective_search(scaled, "fast")
            seconds.append(process_time() - begin)
        rows.append(
            {
                "side": side,
                "cpu_seconds": min(seconds),
                "microseconds_per_pixel": 1e6 * min(seconds) / side**2,
            }
        )
    return rows


def _print(result: Record) -> None:
    for count, key in (("images", "all_images"), ("slow_images", "first_images")):
        print(f"\n{result[count]} images, least side {result['min_side']}")
        print(f"{'method':40s} CPU s  image/s  boxes  r@.5 all/2000   r@.7   MABO")
        for row in result[key]:
            print(
                f"{row['method']:40s} {row['cpu_seconds']:5.3f} {row['images_per_second']:8.2f} "
                f"{row['boxes']:6.0f}  {row['recall_50']:.3f} / {row['recall_50_of_2000']:.3f}  "
                f"{row['recall_70']:.3f}  {row['mabo']:.3f}"
            )
    print("\nms per image    " + "  ".join(f"{name:>8s}" for name in result["phases_ms"]))
    for phase in result["phases_ms"]["fast"]:
        spent = [f"{figures[phase]:8.2f}" for figures in result["phases_ms"].values()]
        print(f"{phase:18s}" + "  ".join(spent))
    print("\nside  CPU s   us per pixel")
    for row in result["scaling"]:
        print(f"{row['side']:4d}  {row['cpu_seconds']:6.3f}  {row['microseconds_per_pixel']:.3f}")
    print("\nfresh worker: side, import s, first image s, peak MB")
    for row in result["worker"]:
        print(
            f"{row['side']:4d}  {row['import_seconds']:5.2f}  {row['first_seconds']:5.2f}  "
            f"{row['peak_megabytes']:4.0f}"
        )
    cold = result["cold_worker"]
    print(
        f"empty cache, quality, first image: {cold['first_seconds']:.1f} s "
        f"({cold['first_cpu_seconds']:.1f} s CPU)"
    )


if __name__ == "__main__":
    main()
