"""Tables that compare trained systems: speed, quality, SVD, and SVMs in place of the softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipeline.detector.timing import LAYERS
from tests.benchmarks.paper_rows import (
    DETECTION,
    IMAGE,
    PAPER,
    STORED,
    TRAINING,
    TRAINING_CPU,
    Row,
)
from tests.benchmarks.paper_runs import Reference, Runs, name_seed
from tests.benchmarks.paper_seconds import describe_sample, measure_detection, read_summary

SYSTEMS = {"rcnn": "R-CNN", "sppnet": "SPPnet", "fast_rcnn": "Fast R-CNN"}
RATIOS = {TRAINING: "training, x Fast R-CNN", DETECTION: "detection, x Fast R-CNN"}
SPEED_UP = "speed-up by SVD"
TIMED_IMAGES = 5
"""Images that the table of SVD times with each network."""


def measure_speed(runs: Runs) -> list[Row]:
    """Training time, stages, stored bytes and seconds per image of the three systems."""
    rows = []
    for system, title in SYSTEMS.items():
        checkpoint = runs.train_system(system)
        detections = runs.detect(system, checkpoint)
        figures = _measure_training(checkpoint) | measure_detection(detections)
        rows.append(_build_speed_row(runs, title, detections, figures, system))
    return [*_add_ratios(rows), *_measure_compressed_speed(runs)]


def _measure_training(checkpoint: str) -> dict[str, float]:
    """Seconds, stages and stored bytes of a training over all of its starts."""
    summary = read_summary(checkpoint)
    stages = summary.get("stages", [{"name": "joint", "seconds": summary["seconds"]}])
    return {
        TRAINING: summary["seconds"],
        TRAINING_CPU: sum(summary["cpu_seconds"].values()),
        "stages": len(stages),
        STORED: summary["counts"].get("feature_bytes", 0) / 1e6,
    } | {f"stage {stage['name']}, wall s": stage["seconds"] for stage in stages}


def _build_speed_row(
    runs: Runs, name: str, detections: str, figures: Mapping[str, float], paper: str
) -> Row:
    return Row(
        name,
        figures=figures,
        paper=PAPER["speed", paper],
        note=describe_sample(detections),
        commands=runs.steps.list_commands(detections),
    )


def _add_ratios(rows: list[Row]) -> list[Row]:
    """The rows with their times as multiples of the last row's, of Fast R-CNN."""
    last = rows[-1].figures
    return [
        replace(
            row,
            figures=dict(row.figures)
            | {
                name: row.figures[key] / last[key]
                for key, name in RATIOS.items()
                if key in row.figures and key in last
            },
        )
        for row in rows
    ]


def _measure_compressed_speed(runs: Runs) -> list[Row]:
    """Seconds per image of Fast R-CNN with fc6 and fc7, whole and factorised."""
    rows: list[Row] = []
    for title, key, checkpoint in zip(
        ("whole", "factorised"),
        ("fully-connected", "svd"),
        _train_fully_connected(runs, 0),
        strict=True,
    ):
        detections = runs.detect(key, checkpoint)
        name = f"Fast R-CNN with fc6 and fc7, {title}"
        row = _build_speed_row(runs, name, detections, measure_detection(detections), title)
        if rows and DETECTION in row.figures and DETECTION in rows[0].figures:
            speed_up = rows[0].figures[DETECTION] / row.figures[DETECTION]
            row = replace(row, figures=dict(row.figures) | {SPEED_UP: speed_up})
        rows.append(row)
    return rows


def measure_quality(runs: Runs) -> list[Row]:
    """The mAP of the three systems, and of Fast R-CNN with the paper's recipe.

    Fast R-CNN is the first row, with which the others are compared.
    """
    rows: list[Row] = []
    baseline: Reference | None = None
    for system in ("fast_rcnn", "rcnn", "sppnet"):
        checkpoints = [runs.train_system(system, seed) for seed in runs.seeds]
        outputs = runs.detect_each(system, checkpoints)
        rows.append(runs.build_row("quality", SYSTEMS[system], outputs, baseline, paper=system))
        baseline = baseline or Reference(SYSTEMS[system], outputs)
    if runs.options.own_recipe:
        return rows
    as_paper = runs.detect_each("joint-as-paper", runs.train_each("joint", as_paper=True))
    title = "Fast R-CNN, the paper's recipe"
    rows.append(runs.build_row("quality", title, as_paper, baseline, paper="fast_rcnn"))
    return rows


def measure_svd(runs: Runs) -> list[Row]:
    """fc6 and fc7 whole and factorised, without any training afterwards: mAP, and time by layer."""
    pairs = [_train_fully_connected(runs, seed) for seed in runs.seeds]
    sources, small = zip(*pairs, strict=True)
    whole, ranked = runs.detect_each("fully-connected", sources), runs.detect_each("svd", small)
    figures = read_summary(small[0])["figures"]
    before, after = (_divide_time(figures, network) for network in ("before", "after"))
    after[SPEED_UP] = before[IMAGE] / after[IMAGE]
    fc6, fc7 = runs.size.ranks
    title = "fc6 and fc7 whole"
    first = runs.build_row("svd", title, whole, paper="whole", figures=before, rests_on=small[:1])
    second = runs.build_row(
        "svd",
        f"fc6 and fc7 of rank {fc6} and {fc7}",
        ranked,
        Reference(title, whole),
        paper="factorised",
        figures=after,
    )
    return [first, second]


def _divide_time(figures: Mapping[str, Mapping[str, float]], network: str) -> dict[str, float]:
    """The seconds of an image, and the share of each layer in per cent."""
    whole = figures["seconds per image"][network]
    shares = {f"{name}, %": 100 * figures[name][network] / whole for name in LAYERS}
    return {IMAGE: whole} | shares


def _train_fully_connected(runs: Runs, seed: int) -> tuple[str, str]:
    """A network with fc6 and fc7, and the same with both factorised."""
    widths = map(str, runs.size.fc_widths)
    source = runs.train("fully-connected", "--fc-widths", *widths, seed=seed)
    small = str(runs.folder / "trained" / name_seed("svd", seed))
    fc6, fc7 = map(str, runs.size.ranks)
    runs.steps.run_job(
        *("compress", "--checkpoint", source, "--output", small, "--fc6", fc6, "--fc7", fc7),
        *("--rois", str(runs.size.proposals), "--repeats", str(TIMED_IMAGES)),
    )
    return source, small


def measure_svm(runs: Runs) -> list[Row]:
    """Softmax scores, or SVMs trained afterwards on the same network's features, with both recipes.

    The paper's recipe has no background of an IoU below 0.1, in place of the hard negatives that SVMs mine.
    """
    rows: list[Row] = []
    baseline: Reference | None = None
    cases = ((False, "", "fast_rcnn"), (True, ", the paper's recipe", "joint-as-paper"))
    for as_paper, end, key in cases[: 1 if runs.options.own_recipe else 2]:
        trained = runs.train_each("joint", as_paper=as_paper)
        name = "svm-as-paper" if as_paper else "svm"
        softmax = Reference(f"softmax{end}", runs.detect_each(key, trained))
        rows.append(runs.build_row("svm", softmax.name, softmax.outputs, baseline, paper="softmax"))
        baseline = baseline or softmax
        machines = [
            runs.train_svm(name, checkpoint, seed) for seed, checkpoint in enumerate(trained)
        ]
        outputs = runs.detect_each(name, machines)
        rows.append(runs.build_row("svm", f"SVM{end}", outputs, softmax, paper="svm"))
    return rows
