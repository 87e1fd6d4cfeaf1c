"""The paper's tables: each function runs its jobs, once, and returns its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.paper_rows import PAPER, Row
from tests.benchmarks.paper_runs import Runs, measure_image_seconds, read_summary
from tests.benchmarks.paper_steps import read_json

SYSTEMS = {"rcnn": "R-CNN", "sppnet": "SPPnet", "fast_rcnn": "Fast R-CNN"}


def measure_speed(runs: Runs) -> list[Row]:
    """Training time, stages, stored bytes and seconds per image of the three systems."""
    rows = []
    for system, title in SYSTEMS.items():
        checkpoint = runs.train_system(system)
        detections = runs.detect(system, checkpoint)
        summary = read_summary(checkpoint)
        stages = summary.get("stages", [{"name": "joint", "seconds": summary["seconds"]}])
        values = {
            "training, s": summary["seconds"],
            "stages": len(stages),
            "stored features, MB": summary["counts"].get("feature_bytes", 0) / 1e6,
            "detection, s per image": measure_image_seconds(detections),
        } | {f"stage {stage['name']}, s": stage["seconds"] for stage in stages}
        paper, commands = PAPER["speed", system], runs.steps.take_commands()
        rows.append(Row(title, values=values, paper=paper, commands=commands))
    return [*rows, *_measure_compressed_speed(runs)]


def _measure_compressed_speed(runs: Runs) -> list[Row]:
    """Seconds per image of Fast R-CNN with fc6 and fc7, whole and factorised."""
    source, small = _train_fully_connected(runs)
    rows = []
    for title, checkpoint in (("whole", source), ("factorised", small)):
        seconds = measure_image_seconds(runs.detect(Path(checkpoint).name, checkpoint))
        values = {"detection, s per image": seconds}
        name = f"Fast R-CNN with fc6 and fc7, {title}"
        rows.append(Row(name, values=values, commands=runs.steps.take_commands()))
    return rows


def measure_quality(runs: Runs) -> list[Row]:
    """The mAP of the three systems; Fast R-CNN is the first row, with which the others are compared."""
    rows: list[Row] = []
    baseline: list[str] | None = None
    for system in ("fast_rcnn", "rcnn", "sppnet"):
        seeds = range(runs.options.seeds if system == "fast_rcnn" else 1)
        outputs = runs.detect_each(system, [runs.train_system(system, seed) for seed in seeds])
        first = None if baseline is None else baseline[: len(outputs)]
        rows.append(runs.build_row("quality", SYSTEMS[system], outputs, first, paper=system))
        baseline = baseline or outputs
    return rows


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
        values = {"training, s per step": _measure_step_seconds(checkpoints[0])}
        rows.append(runs.build_row("layers", name, outputs, baseline, paper=paper, values=values))
        baseline = baseline or outputs
    return rows


def measure_multi_task(runs: Runs) -> list[Row]:
    """The four columns of table 6: each network is one training, tested with or without its boxes."""
    half = str(runs.size.epochs / 2)
    joint = runs.train_each("joint")
    only = runs.train_each("classification", "--box-loss-weight", "0")
    staged = runs.train_each("stage-wise", "--box-loss-weight", "0", "--box-epochs", half)
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
        values = {"detection, s per image": measure_image_seconds(outputs[0])}
        rows.append(runs.build_row("scales", name, outputs, baseline, paper=paper, values=values))
        baseline = baseline or outputs
    return rows


def measure_svd(runs: Runs) -> list[Row]:
    """fc6 and fc7 whole and factorised, without any training afterwards."""
    source, small = _train_fully_connected(runs)
    whole, ranked = (runs.detect(Path(c).name, c) for c in (source, small))
    before, after = (_measure_shares(runs, checkpoint) for checkpoint in (source, small))
    fc6, fc7 = runs.size.ranks
    return [
        runs.build_row("svd", "fc6 and fc7 whole", [whole], paper="whole", values=before),
        runs.build_row(
            "svd",
            f"fc6 and fc7 of rank {fc6} and {fc7}",
            [ranked],
            [whole],
            paper="factorised",
            values=after,
        ),
    ]


def measure_svm(runs: Runs) -> list[Row]:
    """Softmax scores, or SVMs trained afterwards on the same network's features."""
    joint = runs.train("joint")
    softmax = runs.detect("fast_rcnn", joint)
    machines = runs.detect("svm", runs.train_svm(joint))
    return [
        runs.build_row("svm", "softmax", [softmax], paper="softmax"),
        runs.build_row("svm", "SVM", [machines], [softmax], paper="svm"),
    ]


def measure_proposals(runs: Runs) -> list[Row]:
    """Trained and tested with the best N proposals, beside the average recall of these boxes."""
    recall = _analyze_proposals(runs)
    rows: list[Row] = []
    baseline: list[str] | None = None
    for count in runs.size.proposal_counts:
        key = f"proposals-{count}"
        checkpoint = runs.train(key, "--max-proposals", str(count))
        outputs = [runs.detect(key, checkpoint, proposals=count)]
        values = {"average recall": _find_average_recall(recall, count)}
        name = f"{count} proposals"
        rows.append(runs.build_row("proposals", name, outputs, baseline, values=values))
        baseline = baseline or outputs
    return rows


def measure_sampling(runs: Runs) -> list[Row]:
    """A step of 128 RoIs from 2 images, and from 128 images with one RoI each."""
    steps = str(runs.size.sampling_steps)
    rows = []
    for images in (2, 128):
        options = ["--images-per-step", str(images), "--iterations", steps, "--log-every", "2"]
        if (
            images > 2
        ):  # a quarter of one RoI rounds to none; the time does not depend on what it shows
            options += ["--foreground-fraction", "1", "--accumulate", "16"]
        checkpoint = runs.train(f"sampling-{images}", *options)
        seconds = _measure_step_seconds(checkpoint)
        name = f"{images} images x {128 // images} RoIs"
        paper = PAPER["sampling", ""] if images == 2 else ""
        commands = runs.steps.take_commands()
        values = {"training, s per step": seconds}
        rows.append(Row(name, values=values, paper=paper, commands=commands))
    return rows


def measure_fixed_proposals(runs: Runs) -> list[Row]:
    """The recall ceiling of the boxes against the mAP, and the share of time spent in them."""
    detections = runs.detect("fast_rcnn", runs.train("joint"))
    recall = _analyze_proposals(runs)
    summary = read_summary(runs.options.test_proposals)
    proposing = summary["stage_seconds"]["propose"] / max(1, summary["images"])
    detecting = measure_image_seconds(detections)
    values = {
        "recall of all boxes at IoU 0.5": recall["recall50"],
        "recall of all boxes at IoU 0.7": recall["recall70"],
        "proposals, s per image": proposing,
        "detection, s per image": detecting,
        "share of time in proposals": proposing / (proposing + detecting),
    }
    return [runs.build_row("fixed_proposals", "joint training", [detections], values=values)]


def _analyze_proposals(runs: Runs) -> Mapping[str, Any]:
    """The recall of the test proposals."""
    output = runs.folder / "recall"
    runs.steps.run_job(
        *("analyze", "proposals", "--proposals", runs.options.test_proposals),
        *("--manifest", runs.options.test_manifest, "--output", output),
    )
    return read_json(output / "metrics.json")


def _find_average_recall(recall: Mapping[str, Any], count: int) -> float:
    """The average recall of the best `count` boxes, interpolated between the budgets that were scored."""
    points = [(p["boxes"], p["average_recall"]) for p in recall["curve"] if p["boxes"] is not None]
    budgets, recalls = zip(*points, strict=True)
    return float(np.interp(count, budgets, recalls))


def _train_fully_connected(runs: Runs) -> tuple[str, str]:
    """A network with fc6 and fc7, and the same with both factorised."""
    widths = ("--fc-widths", *map(str, runs.size.fc_widths))
    source = runs.train("fully-connected", *widths)
    small = str(runs.folder / "trained" / "svd")
    fc6, fc7 = map(str, runs.size.ranks)
    runs.steps.run_job(
        *("compress", "--checkpoint", source, "--output", small, "--repeats", "0"),
        *("--fc6", fc6, "--fc7", fc7),
    )
    return source, small


def _measure_step_seconds(checkpoint: str) -> float:
    """Median seconds per step of a training, from its log; its first record, of the warm-up, is left out."""
    lines = (Path(checkpoint) / "logs" / "train.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = np.diff([0, *(record["step"] for record in records)])
    seconds = [r["seconds"] / n for r, n in zip(records, steps, strict=True) if n > 0]
    return float(median(seconds[1:] or seconds))


def _measure_shares(runs: Runs, checkpoint: str) -> dict[str, float]:
    """Seconds of a random image, and the share of them that its RoIs add: pooling, fc6, fc7, outputs."""
    path = runs.folder / "measured" / f"{Path(checkpoint).name}.json"
    if not path.exists():
        from pipeline.detector.checkpoint import load_checkpoint
        from pipeline.detector.timing import measure_seconds

        (figures,) = measure_seconds([load_checkpoint(checkpoint)], runs.size.proposals, 5)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"image": figures.image, "rois": figures.rois}))
    stored = read_json(path)
    return {
        "detection, s per image": stored["image"],
        "share of time in RoI layers": stored["rois"] / stored["image"],
    }


TABLES: dict[str, Callable[[Runs], list[Row]]] = {
    "speed": measure_speed,
    "quality": measure_quality,
    "layers": measure_layers,
    "multi_task": measure_multi_task,
    "scales": measure_scales,
    "svd": measure_svd,
    "svm": measure_svm,
    "proposals": measure_proposals,
    "sampling": measure_sampling,
    "fixed_proposals": measure_fixed_proposals,
}
"""The tables by name, in their order."""
