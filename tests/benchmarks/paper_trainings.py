"""Tables that compare trainings of Fast R-CNN: layers, losses, scales, numbers of boxes, sampling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.paper_rows import PAPER, Row
from tests.benchmarks.paper_runs import Runs, measure_image_seconds, read_summary
from tests.benchmarks.paper_steps import read_json

STEP = "training, s per step"


def measure_layers(runs: Runs) -> list[Row]:
    """Training the head only, from the middle on, or all layers."""
    rows: list[Row] = []
    baseline: list[str] | None = None
    papers = ("head only", "middle", "all layers")
    for (name, freeze), paper in zip(runs.size.freezes, papers, strict=True):
        if runs.options.weights is None and freeze != "none":
            continue  # nothing can be frozen at random weights
        key = f"layers-{freeze}"
        checkpoints = runs.train_each(key, "--freeze-until", freeze)
        outputs = runs.detect_each(key, checkpoints)
        figures = {STEP: measure_step_seconds(checkpoints[0])}
        rows.append(runs.build_row("layers", name, outputs, baseline, paper=paper, figures=figures))
        baseline = baseline or outputs
    return rows


def measure_multi_task(runs: Runs) -> list[Row]:
    """The four columns of table 6: each network is one training, tested with or without its boxes.

    Stage-wise training is classification only, then the box layer alone for as many epochs again.
    """
    epochs = str(runs.size.epochs)
    joint = runs.train_each("joint")
    only = runs.train_each("classification", "--box-loss-weight", "0")
    staged = runs.train_each("stage-wise", "--box-loss-weight", "0", "--box-epochs", epochs)
    own = ("--no-refine-boxes",)
    columns = (
        ("classification loss only", "classification", only, ()),
        ("joint training, tested without box regression", "joint, own boxes", joint, own),
        ("stage-wise training", "stage-wise", staged, ()),
        ("joint training", "joint", joint, ()),
    )
    rows: list[Row] = []
    baseline: list[str] | None = None
    for name, paper, checkpoints, options in columns:
        key = {"joint": "fast_rcnn", "joint, own boxes": "own-boxes"}.get(paper, paper)
        outputs = runs.detect_each(key, checkpoints, *options)
        rows.append(runs.build_row("multi_task", name, outputs, baseline, paper=paper))
        baseline = baseline or outputs
    return rows


def measure_scales(runs: Runs) -> list[Row]:
    """One scale or five, in training and in testing."""
    size = runs.size
    sides, cap = tuple(map(str, size.scales)), str(2 * size.cap)
    several = ("--scales", *sides, "--scale-cap", cap)
    single = ("--scales", str(size.side), "--scale-cap", str(size.cap))
    joint = runs.train_each("joint")
    trained = runs.train_each("scales", "--short-sides", *sides, "--max-side", cap)
    cases = (
        ("trained and tested at 1 scale", "fast_rcnn", joint, (), "1"),
        ("trained at 1, tested at 5", "scales-1-5", joint, several, ""),
        ("trained at 5, tested at 1", "scales-5-1", trained, single, ""),
        ("trained and tested at 5", "scales-5-5", trained, several, "5"),
    )
    rows: list[Row] = []
    baseline: list[str] | None = None
    for name, key, checkpoints, options, paper in cases:
        outputs = runs.detect_each(key, checkpoints, *options)
        figures = {"detection, s per image": measure_image_seconds(outputs[0])}
        rows.append(runs.build_row("scales", name, outputs, baseline, paper=paper, figures=figures))
        baseline = baseline or outputs
    return rows


def measure_proposals(runs: Runs) -> list[Row]:
    """Trained and tested with the best N proposals, beside the average recall of these boxes."""
    recall = analyze_proposals(runs)
    rows: list[Row] = []
    baseline: list[str] | None = None
    for count in runs.size.proposal_counts:
        key = f"proposals-{count}"
        checkpoints = runs.train_each(key, "--max-proposals", str(count))
        outputs = [
            runs.detect(f"{key}-{seed}" if seed else key, checkpoint, proposals=count)
            for seed, checkpoint in enumerate(checkpoints)
        ]
        figures = {"average recall": find_average_recall(recall, count)}
        name = f"{count} proposals"
        row = runs.build_row("proposals", name, outputs, baseline, figures=figures)
        rows.append(row)
        baseline = baseline or outputs
    return rows


def measure_sampling(runs: Runs) -> list[Row]:
    """A step of 128 RoIs from 2 images, and from 128 images with one RoI each."""
    steps = str(runs.size.sampling_steps)
    rows = []
    for images in (2, 128):
        options = ["--images-per-step", str(images), "--iterations", steps, "--log-every", "2"]
        if images > 2:
            # A quarter of one RoI rounds to none; the time does not depend on what a RoI shows.
            options += ["--foreground-fraction", "1", "--accumulate", "16"]
        seconds = measure_step_seconds(runs.train(f"sampling-{images}", *options))
        name = f"{images} images x {128 // images} RoIs"
        paper = PAPER["sampling", ""] if images == 2 else ""
        commands = runs.steps.take_commands()
        rows.append(Row(name, figures={STEP: seconds}, paper=paper, commands=commands))
    return rows


def measure_fixed_proposals(runs: Runs) -> list[Row]:
    """The recall ceiling of the boxes against the mAP, and the share of time spent in them."""
    detections = runs.detect("fast_rcnn", runs.train("joint"))
    recall = analyze_proposals(runs)
    summary = read_summary(runs.options.test_proposals)
    proposing = summary["stage_seconds"]["propose"] / max(1, summary["images"])
    detecting = measure_image_seconds(detections)
    figures = {
        "recall of all boxes at IoU 0.5": recall["recall50"],
        "recall of all boxes at IoU 0.7": recall["recall70"],
        "proposals, s per image": proposing,
        "detection, s per image": detecting,
        "share of time in proposals": proposing / (proposing + detecting),
    }
    row = runs.build_row("fixed_proposals", "joint training", [detections], figures=figures)
    return [row]


def analyze_proposals(runs: Runs) -> Mapping[str, Any]:
    """The recall of the test proposals."""
    output = runs.folder / "recall"
    runs.steps.run_job(
        *("analyze", "proposals", "--proposals", runs.options.test_proposals),
        *("--manifest", runs.options.test_manifest, "--output", output),
    )
    return read_json(output / "metrics.json")


def find_average_recall(recall: Mapping[str, Any], count: int) -> float:
    """The average recall of the best `count` boxes, interpolated between the budgets that were scored."""
    points = [(p["boxes"], p["average_recall"]) for p in recall["curve"] if p["boxes"] is not None]
    budgets, recalls = zip(*points, strict=True)
    return float(np.interp(count, budgets, recalls))


def measure_step_seconds(checkpoint: str) -> float:
    """Median seconds per step of a training, from its log; its first record, of the warm-up, is left out."""
    lines = (Path(checkpoint) / "logs" / "train.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = np.diff([0, *(record["step"] for record in records)])
    seconds = [r["seconds"] / n for r, n in zip(records, steps, strict=True) if n > 0]
    return float(median(seconds[1:] or seconds))
