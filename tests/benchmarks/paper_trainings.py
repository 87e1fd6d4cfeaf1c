"""Tables that compare trainings of Fast R-CNN: layers, losses, scales, numbers of boxes, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks.paper_rows import DETECTION, PAPER, STEP, Row
from tests.benchmarks.paper_runs import Reference, Runs
from tests.benchmarks.paper_seconds import (
    describe_sample,
    measure_detection,
    measure_image_seconds,
    measure_step_seconds,
)
from tests.benchmarks.paper_steps import read_json

STEPS_OF_128_IMAGES = 4
"""Steps of 128 images that are timed: each takes as long as many of 2 images."""
SPEED_UP = "speed-up"


def measure_layers(runs: Runs) -> list[Row]:
    """Training the head only, from the middle on, or all layers."""
    rows: list[Row] = []
    baseline: Reference | None = None
    papers = ("head only", "middle", "all layers")
    for (name, freeze), paper in zip(runs.size.freezes, papers, strict=True):
        if runs.options.weights is None and freeze != "none":
            continue  # nothing can be frozen at random weights
        key = f"layers-{freeze}"
        if freeze == runs.default_freeze:
            key, checkpoints = "fast_rcnn", runs.train_each("joint")
        else:
            checkpoints = runs.train_each(key, "--freeze-until", freeze)
        outputs = runs.detect_each(key, checkpoints)
        figures = {STEP: measure_step_seconds(checkpoints[0])}
        rows.append(runs.build_row("layers", name, outputs, baseline, paper=paper, figures=figures))
        baseline = Reference(name, outputs)  # each row shows what its layers add
    return rows


def measure_multi_task(runs: Runs) -> list[Row]:
    """The four columns of table 6: each network is one training, tested with or without its boxes.

    Stage-wise training is classification only, then the box layer alone for as many epochs again. A fifth
    row compares joint training with it.
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
    baseline: Reference | None = None
    detected: dict[str, Reference] = {}
    for name, paper, checkpoints, options in columns:
        key = {"joint": "fast_rcnn", "joint, own boxes": "own-boxes"}.get(paper, paper)
        outputs = runs.detect_each(key, checkpoints, *options)
        rows.append(runs.build_row("multi_task", name, outputs, baseline, paper=paper))
        detected[paper] = Reference(name, outputs)
        baseline = baseline or detected[paper]
    name, outputs = "joint training, against stage-wise", detected["joint"].outputs
    paper = "joint, against stage-wise"
    rows.append(runs.build_row("multi_task", name, outputs, detected["stage-wise"], paper=paper))
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
    baseline: Reference | None = None
    for name, key, checkpoints, options, paper in cases:
        outputs = runs.detect_each(key, checkpoints, *options)
        row = runs.build_row(
            "scales",
            name,
            outputs,
            baseline,
            paper=paper,
            figures=measure_detection(outputs[0]),
            note=describe_sample(outputs[0]),
        )
        rows.append(row)
        baseline = baseline or Reference(name, outputs)
    return rows


def measure_proposals(runs: Runs) -> list[Row]:
    """Trained and tested with the best N proposals, beside the average recall of these boxes.

    Each row is compared with that of the other tables' number, or of the largest N if that is not among them.
    """
    recall, recall_output = analyze_proposals(runs)
    counts, usual = runs.size.proposal_counts, runs.size.proposals
    outputs = {count: _detect_with_best(runs, count) for count in counts}
    base = usual if usual in outputs else max(counts)
    reference = Reference(f"{base} proposals", outputs[base])
    return [
        runs.build_row(
            "proposals",
            f"{count} proposals",
            outputs[count],
            None if count == base else reference,
            paper="" if count == counts[0] else "none",
            figures={"average recall": interpolate_recall(recall, count)},
            rests_on=[recall_output],
        )
        for count in counts
    ]


def _detect_with_best(runs: Runs, count: int) -> list[str]:
    """Detections of each seed, trained and tested with the best `count` proposals."""
    if count == runs.size.proposals:
        return runs.detect_each("fast_rcnn", runs.train_each("joint"))
    key, option = f"proposals-{count}", ("--max-proposals", str(count))
    return runs.detect_each(key, runs.train_each(key, *option), *option)


def measure_sampling(runs: Runs) -> list[Row]:
    """A step of 128 RoIs from 2 images, and from 128 images with one RoI each."""
    few = runs.train(
        *("sampling-2", "--images-per-step", "2"),
        *("--iterations", str(runs.size.sampling_steps), "--log-every", "2"),
    )
    # A quarter of one RoI rounds to none; the time does not depend on what a RoI shows.
    many = runs.train(
        *("sampling-128", "--images-per-step", "128", "--accumulate", "16"),
        *("--iterations", str(STEPS_OF_128_IMAGES), "--log-every", "1"),
        *("--foreground-fraction", "1"),
    )
    seconds = {checkpoint: measure_step_seconds(checkpoint) for checkpoint in (few, many)}
    few_figures = {STEP: seconds[few], SPEED_UP: seconds[many] / seconds[few]}
    list_commands = runs.steps.list_commands
    return [
        Row(
            "2 images x 64 RoIs",
            figures=few_figures,
            paper=PAPER["sampling", ""],
            commands=list_commands(few, many),
        ),
        Row("128 images x 1 RoI", figures={STEP: seconds[many]}, commands=list_commands(many)),
    ]


def measure_fixed_proposals(runs: Runs) -> list[Row]:
    """The recall ceiling of the boxes against the mAP, and the share of time spent in them."""
    outputs = runs.detect_each("fast_rcnn", runs.train_each("joint"))
    detections = outputs[0]
    recall, recall_output = analyze_proposals(runs)
    proposals = runs.options.test_proposals
    proposing = measure_image_seconds(proposals, "propose")
    detecting = measure_image_seconds(detections)
    count = runs.size.proposals
    figures = {
        f"recall of the best {count} at IoU 0.5": interpolate_recall(recall, count, "recall50"),
        f"recall of the best {count} at IoU 0.7": interpolate_recall(recall, count, "recall70"),
        "recall of all stored boxes at IoU 0.5": recall["recall50"],
    }
    if proposing is not None:
        figures["proposals, worker-s per image"] = proposing
    if detecting is not None:
        figures[DETECTION] = detecting
    if proposing is not None and detecting is not None:
        figures["share of time in proposals"] = proposing / (proposing + detecting)
    notes = [describe_sample(proposals, "propose"), describe_sample(detections)]
    row = runs.build_row(
        "fixed_proposals",
        "joint training",
        outputs,
        figures=figures,
        note="; ".join(note for note in notes if note),
        rests_on=[recall_output],
    )
    return [row]


def analyze_proposals(runs: Runs) -> tuple[Mapping[str, Any], str]:
    """The recall of the test proposals, and the output that it is in."""
    output = runs.folder / "recall"
    runs.steps.run_job(
        *("analyze", "proposals", "--proposals", runs.options.test_proposals),
        *("--manifest", runs.options.test_manifest, "--output", output),
    )
    return read_json(output / "metrics.json"), str(output)


def interpolate_recall(
    recall: Mapping[str, Any], count: int, name: str = "average_recall"
) -> float:
    """A recall of the best `count` boxes, interpolated between the budgets that were scored."""
    points = [(p["boxes"], p[name]) for p in recall["curve"] if p["boxes"] is not None]
    budgets, recalls = zip(*points, strict=True)
    return float(np.interp(count, budgets, recalls))
