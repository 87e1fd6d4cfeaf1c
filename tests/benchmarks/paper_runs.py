"""Trainings, detections and comparisons of the paper's tables, as jobs of one folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.paper_rows import PAPER, Row
from tests.benchmarks.paper_sizes import Size
from tests.benchmarks.paper_steps import Steps, read_json


class Runs:
    """The jobs that tables share: each runs once, whichever table asks first."""

    def __init__(self, steps: Steps, size: Size, options: argparse.Namespace) -> None:
        self.steps = steps
        self.size = size
        self.options = options

    def train(self, name: str, *changed: str, seed: int = 0) -> str:
        """Train Fast R-CNN at the single scale, with changed options; returns the checkpoint."""
        size = self.size
        base = _drop_options([*size.single_scale, "--epochs", str(size.epochs)], changed)
        return self._train(name, [*base, *changed, *self.options.training], seed)

    def train_system(self, system: str, seed: int = 0) -> str:
        """Train R-CNN, SPPnet or Fast R-CNN on the same trunk and boxes."""
        size = self.size
        if system == "fast_rcnn":
            return self.train("joint", seed=seed)
        options = [*size.fine_tuning]
        if system == "rcnn":
            options += size.windows
        else:
            options += ["--fc-widths", *map(str, size.fc_widths)]
            options += ["--scales", *map(str, size.scales), "--scale-cap", str(2 * size.cap)]
        return self._train(system, ["--system", system, *options], seed)

    def train_svm(self, checkpoint: str, seed: int = 0) -> str:
        """Train SVMs on the features of a Fast R-CNN."""
        output = str(self.folder / "trained" / _name("svm", seed))
        self.steps.run_job(
            *("train", *self._list_training_data(), "--recipe", self.size.recipe),
            *("--system", "fast-rcnn-svm", "--weights", checkpoint),
            *("--seed", str(seed), "--output", output),
        )
        return output

    def _train(self, name: str, options: Sequence[str], seed: int) -> str:
        output = str(self.folder / "trained" / _name(name, seed))
        weights = () if self.options.weights is None else ("--weights", self.options.weights)
        self.steps.run_job(
            *("train", *self._list_training_data(), "--recipe", self.size.recipe, *weights),
            *(*self.size.network, *options, "--seed", str(seed), "--output", output),
        )
        return output

    def detect(
        self, name: str, checkpoint: str, *changed: str, proposals: int | None = None
    ) -> str:
        """Detect in the test images; returns the output."""
        output = str(self.folder / "detected" / name)
        count = str(proposals or self.size.proposals)
        self.steps.run_job(
            *("detect", "--manifest", self.options.test_manifest),
            *("--proposals", self.options.test_proposals, "--checkpoint", checkpoint),
            *("--max-proposals", count, "--image-seconds", "3600", *changed, "--output", output),
        )
        return output

    def detect_each(self, name: str, checkpoints: Sequence[str], *changed: str) -> list[str]:
        """Detect with the checkpoint of each seed."""
        return [
            self.detect(_name(name, seed), checkpoint, *changed)
            for seed, checkpoint in enumerate(checkpoints)
        ]

    def train_each(self, name: str, *changed: str) -> list[str]:
        """Train Fast R-CNN with each seed."""
        return [self.train(name, *changed, seed=seed) for seed in range(self.options.seeds)]

    def build_row(
        self,
        table: str,
        name: str,
        outputs: Sequence[str],
        baseline: Sequence[str] | None = None,
        *,
        paper: str = "",
        values: Mapping[str, float] | None = None,
    ) -> Row:
        """A row from the detections of each seed, compared with those of the table's first row.

        Args:
            table: the table's name.
            name: what a reader calls the row.
            outputs: detections, one per seed.
            baseline: detections that they are compared with; None: this is the first row.
            paper: the row's key in `PAPER`.
            values: other figures.
        """
        pairs = list(zip(baseline or outputs, outputs, strict=True))
        compared = [
            self.steps.compare(first, second, self.options.test_manifest)["voc07_map50"]
            for first, second in pairs
        ]
        is_first = baseline is None
        return Row(
            name,
            mean(c["second"] for c in compared),
            None if is_first else mean(c["difference"] for c in compared),
            None if is_first else (compared[0]["low"], compared[0]["high"]),
            len(outputs),
            values or {},
            PAPER.get((table, paper), ""),
            self.steps.take_commands(),
        )

    @property
    def folder(self) -> Path:
        """Of all outputs."""
        return self.steps.folder

    def _list_training_data(self) -> tuple[str, ...]:
        return (
            *("--manifest", self.options.manifest),
            *("--proposals", self.options.proposals),
        )


def read_summary(output: str) -> Mapping[str, Any]:
    """The summary.json of a job's output."""
    return read_json(Path(output) / "summary.json")


def measure_image_seconds(detections: str) -> float:
    """Seconds of the detectors per test image, summed over all that worked."""
    summary = read_summary(detections)
    return float(summary["stage_seconds"]["detect"]) / max(1, int(summary["images"]))


def _name(name: str, seed: int) -> str:
    return f"{name}-{seed}" if seed else name


def _drop_options(options: Sequence[str], changed: Sequence[str]) -> list[str]:
    """The options without those that `changed` sets."""
    replaced = {word for word in changed if word.startswith("--")}
    remaining: list[str] = []
    is_replaced = False
    for word in options:
        is_replaced = word in replaced if word.startswith("--") else is_replaced
        if not is_replaced:
            remaining.append(word)
    return remaining
