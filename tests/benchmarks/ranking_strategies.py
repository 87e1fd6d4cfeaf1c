"""Which strategies are worth their time, in the learned order: a search over their parameters.

python -m tests.benchmarks.ranking_strategies --manifest devtrain.parquet --first 900 --limit 100

With `--max-sides 300 400`, each strategy also searches the images shrunk to these longer sides. For each
strategy: CPU milliseconds per image (best of two runs, all strategies taking turns), boxes, then recall@0.5
and mean best IoU of all boxes and of the first 200, 500 and 2000 in the learned order. Those that no quicker
one equals in both figures of the first 500 are marked.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from pipeline import geometry
from pipeline.proposals import selective_search, warm_up_kernels
from pipeline.proposals.ranking_choice import load_ranking
from tests.benchmarks.ranking import COUNTS, find_best, read_images

STRATEGIES = (
    "fast",
    "Lab:CTSF:50",
    "Lab:CTSF,TSF,F,S:50",
    "Lab:CTSF,TSF,F,S:100",
    "HSV:CTSF,TSF,F,S:50",
    "Lab:CTSF,TSF:50,100",
    "Lab:CTSF,TSF,F,S:50,100",
    "Lab:CTSF,F,S:50,100",
    "HSV:CTSF,TSF,F,S:50,100",
    "rgI:CTSF,TSF,F,S:50,100",
    "RGB:CTSF,TSF,F,S:50,100",
    "Lab:CTSF,TSF,F,S:50,150",
    "Lab:CTSF,TSF,F,S,C,T:50,100",
    "HSV,Lab:CTSF,TSF,F,S:50",
    "HSV,Lab:CTSF,TSF,F,S:100",
    "HSV,Lab:CTSF,F,S:50,100",
    "HSV,Lab:CTSF,TSF,F,S:50,100",
    "HSV,Lab:CTSF,TSF,F,S:50,100:sigma=0.5",
    "HSV,Lab:CTSF,TSF,F,S:50,100:min_size=30",
    "rgI,Lab:CTSF,TSF,F,S:50,100",
    "HSV,Lab:CTSF,TSF,F,S:50,150",
    "HSV,Lab:CTSF,TSF,F,S:30,80",
    "Lab,rgI:CTSF,TSF,F,S:50",
    "Lab,rgI:CTSF,TSF,F,S:70",
    "Lab,rgI:CTSF,TSF,F,S,C,T:50",
    "Lab,rgI:CTSF,TSF,F,S,CT,CF:50",
    "HSV,Lab:CTSF,TSF,F,S:70",
    "HSV,Lab:CTSF,TSF,F,S,CT,CF:50",
    "HSV,Lab,rgI:CTSF,TSF,F:50",
    "HSV,Lab,rgI:CTSF,TSF,F,S:70",
    "HSV,Lab,rgI:CTSF,TSF,F,S:50",
    "HSV,Lab,rgI:CTSF,TSF,F,S:50,100",
)
"""Colour spaces, similarities, k, sigma and the smallest segment, varied one or two at a time."""
_REPORTED = (200, 500, 2000)
"""The numbers of first boxes in the table."""


def main() -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="annotated images, in files of their own")
    parser.add_argument("--first", type=int, default=0, help="number of images to skip")
    parser.add_argument("--limit", type=int, default=100, help="number of images")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--ranking", default="learned", help="learned, or a model of jobs/rank.py")
    parser.add_argument(
        "--max-sides", nargs="+", type=int, help="also search images of these sides"
    )
    parser.add_argument("--json", type=Path, help="output file for the figures")
    options = parser.parse_args()
    for strategy in options.strategies:
        warm_up_kernels(strategy, options.ranking)
    rows = mark_front(_measure(options))
    print(f"  {'strategy':45s} CPU ms  boxes   all boxes    first 200    first 500   first 2000")
    for row in rows:
        size = "" if row["max_side"] is None else f", max_side {row['max_side']}"
        name = f"{'*' if row['on_front'] else ' '} {row['strategy'] + size:45s}"
        pairs = ("all", *_REPORTED)
        figures = "  ".join(f"{row[f'recall_{n}']:.3f}/{row[f'iou_{n}']:.3f}" for n in pairs)
        print(f"{name} {row['cpu_ms']:6.1f} {row['boxes']:6.0f}  {figures}")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    sizes = [None, *(options.max_sides or [])]
    searches = [(strategy, size) for strategy in options.strategies for size in sizes]
    ranking = load_ranking(options.ranking) or "authors"
    count = len(searches)
    best: list[list[np.ndarray]] = [[] for _ in range(count)]
    first: list[list[np.ndarray]] = [[] for _ in range(count)]
    seconds, boxes = np.zeros(count), np.zeros(count)
    images = 0
    rows = read_images(options.manifest, options.first + options.limit)
    for number, (_, image, objects) in enumerate(rows):
        if number < options.first:
            continue
        images += 1
        spent = np.full(count, np.inf)
        for repeat in range(2):
            for index, (strategy, size) in enumerate(searches):
                begin = process_time()
                proposals = selective_search(image, strategy, max_side=size, ranking=ranking)
                spent[index] = min(spent[index], process_time() - begin)
                if repeat:
                    continue
                boxes[index] += len(proposals)
                first[index].append(find_best(proposals, objects))
                if len(objects) and len(proposals):
                    best[index].append(geometry.iou(objects, proposals).max(axis=1))
                else:
                    best[index].append(np.zeros(len(objects)))
        seconds += spent
    figures = []
    for index, (strategy, size) in enumerate(searches):
        whole, ranked = np.concatenate(best[index]), np.concatenate(first[index])
        row = {
            "strategy": strategy,
            "max_side": size,
            "cpu_ms": 1e3 * seconds[index] / images,
            "boxes": boxes[index] / images,
            "recall_all": float((whole >= 0.5).mean()),
            "iou_all": float(whole.mean()),
        }
        for count in _REPORTED:
            of_count = ranked[:, COUNTS.index(count)]
            row[f"recall_{count}"] = float((of_count >= 0.5).mean())
            row[f"iou_{count}"] = float(of_count.mean())
        figures.append(row)
    return figures


def mark_front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by time, and mark the strategies that no quicker one equals in both figures of the first 500."""
    rows = sorted(rows, key=lambda row: row["cpu_ms"])
    for index, row in enumerate(rows):
        row["on_front"] = not any(
            other["recall_500"] >= row["recall_500"] and other["iou_500"] >= row["iou_500"]
            for other in rows[:index]
        )
    return rows


if __name__ == "__main__":
    main()
