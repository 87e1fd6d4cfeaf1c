"""Tables that compare trained systems: speed, quality, SVD, and SVMs in place of the softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.detector.timing import LAYERS
from tests.benchmarks.paper_rows import PAPER, Row
from tests.benchmarks.paper_runs import Runs, measure_image_seconds, read_summary

SYSTEMS = {"rcnn": "R-CNN", "sppnet": "SPPnet", "fast_rcnn": "Fast R-CNN"}
TRAINING, DETECTION = "training, s", "detection, s per image"
DETECTION_CPU = "detection, CPU s per image"
TIMED_IMAGES = 5
"""Images that the table of SVD times with each network."""


def measure_speed(runs: Runs) -> list[Row]:
    """Training time, stages, stored bytes and seconds per image of the three systems."""
    rows = []
    for system, title in SYSTEMS.items():
        checkpoint = runs.train_system(system)
        detections = runs.detect(system, checkpoint)
        summary = read_summary(checkpoint)
        stages = summary.get("stages", [{"name": "joint", "seconds": summary["seconds"]}])
        figures = {
            TRAINING: summary["seconds"],
            "training, CPU s": sum(summary["cpu_seconds"].values()),
            "stages": len(stages),
            "stored features, MB": summary["counts"].get("feature_bytes", 0) / 1e6,
            DETECTION: measure_image_seconds(detections),
            DETECTION_CPU: measure_image_seconds(detections, "cpu_seconds"),
        } | {f"stage {stage['name']}, s": stage["seconds"] for stage in stages}
        paper, commands = PAPER["speed", system], runs.steps.take_commands()
        rows.append(Row(title, figures=figures, paper=paper, commands=commands))
    return [*_add_ratios(rows), *_measure_compressed_speed(runs)]


def _add_ratios(rows: list[Row]) -> list[Row]:
    """The rows with their times as multiples of the last row's, of Fast R-CNN."""
    last = rows[-1].figures
    ratios = {TRAINING: "training, x Fast R-CNN", DETECTION: "detection, x Fast R-CNN"}
    return [
        replace(
            row,
            figures=dict(row.figures)
            | {name: row.figures[key] / last[key] for key, name in ratios.items()},
        )
        for row in rows
    ]


def _measure_compressed_speed(runs: Runs) -> list[Row]:
    """Seconds per image of Fast R-CNN with fc6 and fc7, whole and factorised."""
    source, small = _train_fully_connected(runs)
    rows = []
    for title, checkpoint in (("whole", source), ("factorised", small)):
        detections = runs.detect(Path(checkpoint).name, checkpoint)
        figures = {
            DETECTION: measure_image_seconds(detections),
            DETECTION_CPU: measure_image_seconds(detections, "cpu_seconds"),
        }
        name = f"Fast R-CNN with fc6 and fc7, {title}"
        paper, commands = PAPER.get(("speed", title), ""), runs.steps.take_commands()
        rows.append(Row(name, figures=figures, paper=paper, commands=commands))
    return rows


def measure_quality(runs: Runs) -> list[Row]:
    """The mAP of the three systems, and of Fast R-CNN with the paper's recipe.

    Fast R-CNN is the first row, with which the others are compared.
    """
    rows: list[Row] = []
    baseline: list[str] | None = None
    for system in ("fast_rcnn", "rcnn", "sppnet"):
        seeds = range(runs.options.seeds if system == "fast_rcnn" else 1)
        outputs = runs.detect_each(system, [runs.train_system(system, seed) for seed in seeds])
        first = None if baseline is None else baseline[: len(outputs)]
        rows.append(runs.build_row("quality", SYSTEMS[system], outputs, first, paper=system))
        baseline = baseline or outputs
    if runs.options.own_recipe:
        return rows
    as_paper = runs.detect_each("joint-as-paper", runs.train_each("joint", as_paper=True))
    title = "Fast R-CNN, the paper's recipe"
    rows.append(runs.build_row("quality", title, as_paper, baseline, paper="fast_rcnn"))
    return rows


def measure_svd(runs: Runs) -> list[Row]:
    """fc6 and fc7 whole and factorised, without any training afterwards: mAP, and time by layer."""
    source, small = _train_fully_connected(runs)
    whole, ranked = (runs.detect(Path(c).name, c) for c in (source, small))
    figures = read_summary(small)["figures"]
    before, after = (_divide_time(figures, network) for network in ("before", "after"))
    fc6, fc7 = runs.size.ranks
    title = f"fc6 and fc7 of rank {fc6} and {fc7}"
    return [
        runs.build_row("svd", "fc6 and fc7 whole", [whole], paper="whole", figures=before),
        runs.build_row("svd", title, [ranked], [whole], paper="factorised", figures=after),
    ]


def _divide_time(figures: Mapping[str, Mapping[str, float]], network: str) -> dict[str, float]:
    """The seconds of an image, and the share of each layer in per cent."""
    whole = figures["seconds per image"][network]
    shares = {f"{name}, %": 100 * figures[name][network] / whole for name in LAYERS}
    return {"an image, s": whole} | shares


def _train_fully_connected(runs: Runs) -> tuple[str, str]:
    """A network with fc6 and fc7, and the same with both factorised."""
    source = runs.train("fully-connected", "--fc-widths", *map(str, runs.size.fc_widths))
    small = str(runs.folder / "trained" / "svd")
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
    baseline: list[str] | None = None
    cases = ((False, "", "fast_rcnn"), (True, ", the paper's recipe", "joint-as-paper"))
    for as_paper, end, key in cases[: 1 if runs.options.own_recipe else 2]:
        trained = runs.train_each("joint", as_paper=as_paper)
        name = "svm-as-paper" if as_paper else "svm"
        softmax = runs.detect_each(key, trained)
        rows.append(runs.build_row("svm", f"softmax{end}", softmax, baseline, paper="softmax"))
        baseline = baseline or softmax
        machines = [
            runs.train_svm(name, checkpoint, seed) for seed, checkpoint in enumerate(trained)
        ]
        outputs = runs.detect_each(name, machines)
        rows.append(runs.build_row("svm", f"SVM{end}", outputs, softmax, paper="svm"))
    return rows
