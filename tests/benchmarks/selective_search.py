"""Selective search against its peers, on the same images in one run.

python -m tests.benchmarks.selective_search --images DIR --annotations DIR --list FILE --json FILE

CPU seconds are medians over images, of a single thread. The methods take turns on each image, so that
a busy machine slows all of them equally. Recall and MABO skip objects marked difficult. Every method's
boxes have the same minimum side and no duplicates. Slow methods only process the first `--slow-limit`
images; a second table compares all methods on these, and names the ratios of times to OpenCV's Fast.

`python -m tests.benchmarks.proposal_figure` draws the JSON.
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
from pipeline.proposals import STRATEGIES, selective_search, warm_up_kernels
from pipeline.sources.voc_xml import parse_annotation
from tests.benchmarks.proposal_methods import Method, list_methods, list_versions
from tests.benchmarks.proposal_phases import measure_phases
from tests.benchmarks.proposal_worker import measure_worker

Record = dict[str, Any]


def main() -> None:
    """Measure, print the tables and write the JSON."""
    options = _options()
    names = Path(options.list).read_text().split()[: options.limit]
    images = [imaging.decode_image((options.images / f"{n}.jpg").read_bytes()) for n in names]
    objects = [_read_objects(options.annotations / f"{name}.xml") for name in names]
    warm_up_seconds = {name: warm_up_kernels(name, "learned") for name in STRATEGIES}
    methods = [
        method
        for method in list_methods(options.min_side)
        if not options.only or any(part in method.name for part in options.only)
    ]
    records = _compare(methods, images, objects, options.slow_limit)
    slow_images = min(options.slow_limit, len(names))
    result = {
        "images": len(names),
        "min_side": options.min_side,
        "versions": list_versions(),
        "warm_up_seconds": warm_up_seconds,
        "all_images": _build_table([m for m in methods if not m.slow], records, len(names)),
        "slow_images": slow_images,
        "first_images": _build_table(methods, records, slow_images),
    }
    if not options.tables_only:
        result |= {
            "phases_ms": {s: measure_phases(images[:30], s) for s in ("fast", "quality")},
            "scaling": _measure_scaling(images[0]),
            "worker": [measure_worker(side) for side in (500, 1000, 2000)],
            "cold_worker": measure_worker(500, "quality", cold=True),
        }
    _print(result)
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of NAME.jpg")
    parser.add_argument("--annotations", type=Path, required=True, help="folder of NAME.xml (VOC)")
    parser.add_argument("--list", required=True, help="file of image names, one per line")
    parser.add_argument("--json", required=True, help="output file for the figures")
    parser.add_argument("--limit", type=int, help="number of images; all by default")
    parser.add_argument(
        "--slow-limit", type=int, default=20, help="number of images for slow methods"
    )
    parser.add_argument(
        "--min-side", type=int, default=20, help="minimum side of all boxes, in pixels"
    )
    parser.add_argument(
        "--only", nargs="*", help="only run methods whose name contains one of these"
    )
    parser.add_argument(
        "--tables-only",
        action="store_true",
        help="skip the phases, the scaling and the fresh workers",
    )
    return parser.parse_args()


def _read_objects(path: Path) -> list[tuple[str, list[float]]]:
    parsed = parse_annotation(path.read_bytes(), str(path))
    return [(o.label, [o.x1, o.y1, o.x2, o.y2]) for o in parsed.objects if not o.difficult]


def _compare(
    methods: list[Method], images: list, objects: list, slow_limit: int
) -> dict[str, list[Record]]:
    records: dict[str, list[Record]] = defaultdict(list)
    begin = perf_counter()
    for number, (image, annotated) in enumerate(zip(images, objects, strict=True)):
        for method in methods:
            if method.slow and number >= slow_limit:
                continue
            started = process_time()
            boxes = method.propose(image)
            seconds = process_time() - started
            records[method.name].append(_build_record(boxes, annotated, seconds))
        if (number + 1) % 10 == 0:
            print(f"{number + 1} images, {perf_counter() - begin:.0f} s", flush=True)
    return records


def _build_record(boxes: np.ndarray, annotated: list, seconds: float) -> Record:
    labels = [label for label, _ in annotated]
    corners = np.array([box for _, box in annotated], np.float32).reshape(-1, 4)
    overlaps = geometry.iou(corners, boxes) if len(boxes) else np.zeros((len(corners), 1))
    return {
        "seconds": seconds,
        "boxes": len(boxes),
        "labels": labels,
        "best": overlaps.max(axis=1),
        "best_2000": overlaps[:, :2000].max(axis=1),
        "best_500": overlaps[:, :500].max(axis=1),
    }


def _build_table(
    methods: list[Method], records: dict[str, list[Record]], count: int
) -> list[Record]:
    rows = []
    for method in methods:
        method_records = records[method.name][:count]
        best = np.concatenate([record["best"] for record in method_records])
        best_2000 = np.concatenate([record["best_2000"] for record in method_records])
        best_500 = np.concatenate([record["best_500"] for record in method_records])
        labels = np.array([label for record in method_records for label in record["labels"]])
        seconds = [record["seconds"] for record in method_records]
        rows.append(
            {
                "method": method.name,
                "cpu_seconds": float(np.median(seconds)),
                "images_per_second": len(method_records)
                / sum(record["seconds"] for record in method_records),
                "boxes": float(np.median([record["boxes"] for record in method_records])),
                "recall_50": float((best >= 0.5).mean()),
                "recall_50_of_2000": float((best_2000 >= 0.5).mean()),
                "recall_70": float((best >= 0.7).mean()),
                "mabo": _average_by_class(best, labels),
                "recall_50_of_500": float((best_500 >= 0.5).mean()),
                "mabo_of_500": _average_by_class(best_500, labels),
            }
        )
    return rows


def _average_by_class(best: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([best[labels == c].mean() for c in np.unique(labels)]))


def _measure_scaling(image: np.ndarray) -> list[Record]:
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
        print(f"\n{result[count]} images, minimum side {result['min_side']}")
        print(f"{'method':40s} CPU s  image/s  boxes  r@.5 all/2000/500     r@.7   MABO all/500")
        for row in result[key]:
            print(
                f"{row['method']:40s} {row['cpu_seconds']:5.3f} {row['images_per_second']:8.2f} "
                f"{row['boxes']:6.0f}  {row['recall_50']:.3f} / {row['recall_50_of_2000']:.3f} / "
                f"{row['recall_50_of_500']:.3f}  {row['recall_70']:.3f}  {row['mabo']:.3f} / "
                f"{row['mabo_of_500']:.3f}"
            )
        _print_ratios(result[key])
    if "phases_ms" in result:
        _print_costs(result)


def _print_ratios(rows: list[Record]) -> None:
    """Print how many times longer OpenCV's Fast takes, for each of this project's strategies."""
    for peer in (row for row in rows if row["method"].startswith("OpenCV, fast")):
        ratios = ", ".join(
            f"{row['method'].removeprefix('ours, ')} {peer['cpu_seconds'] / row['cpu_seconds']:.1f}"
            for row in rows
            if row["method"].startswith("ours")
        )
        print(f"times as long, {peer['method']}: {ratios}")


def _print_costs(result: Record) -> None:
    print("\nms per image    " + "  ".join(f"{name:>8s}" for name in result["phases_ms"]))
    for phase in result["phases_ms"]["fast"]:
        spent = [f"{figures[phase]:8.2f}" for figures in result["phases_ms"].values()]
        print(f"{phase:18s}" + "  ".join(spent))
    print("\nside  CPU s   us per pixel")
    for row in result["scaling"]:
        print(f"{row['side']:4d}  {row['cpu_seconds']:6.3f}  {row['microseconds_per_pixel']:.3f}")
    print("\nfresh worker process: side, import s, first image s, peak MB")
    for row in result["worker"]:
        print(
            f"{row['side']:4d}  {row['import_seconds']:5.2f}  {row['first_seconds']:5.2f}  "
            f"{row['peak_megabytes']:4.0f}"
        )
    cold = result["cold_worker"]
    print(
        f"empty Numba cache, quality, first image: {cold['first_seconds']:.1f} s "
        f"({cold['first_cpu_seconds']:.1f} s CPU)"
    )


if __name__ == "__main__":
    main()
