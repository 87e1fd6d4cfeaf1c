"""Trainings, detections and comparisons of the paper's tables, as jobs of one folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.training.recipes import get_recipe
from tests.benchmarks.paper_rows import FINER, MAP, PAPER, Estimate, Row
from tests.benchmarks.paper_sizes import PAPER_RECIPE, Size
from tests.benchmarks.paper_steps import Score, Steps

WITH_PAPER_RECIPE = "-as-paper"
"""End of the names of trainings with the paper's recipe."""


@dataclass(frozen=True)
class Reference:
    """Detections that rows are compared with."""

    name: str
    """Of their row."""
    outputs: Sequence[str]
    """One per seed."""


class Runs:
    """The jobs that tables share: each runs once, whichever table asks first."""

    def __init__(self, steps: Steps, size: Size, options: argparse.Namespace) -> None:
        self.steps = steps
        self.size = size
        self.options = options

    def train(self, name: str, *changed: str, seed: int = 0, as_paper: bool = False) -> str:
        """Train Fast R-CNN at the single scale, with changed options; returns the checkpoint.

        Args:
            name: of the output.
            changed: options that replace those of all trainings.
            seed: of the training.
            as_paper: train with the paper's recipe.
        """
        size = self.size
        base = [*size.single_scale, "--epochs", str(size.epochs)]
        base += ["--max-proposals", str(size.proposals)]
        if as_paper:
            base += [*PAPER_RECIPE, *size.paper_rates]
            name += WITH_PAPER_RECIPE
        options = [*_drop_options(base, changed), *changed, *self.options.training]
        return self._train(name, options, seed)

    def train_system(self, system: str, seed: int = 0) -> str:
        """Train R-CNN, SPPnet or Fast R-CNN on the same trunk and boxes."""
        size = self.size
        if system == "fast_rcnn":
            return self.train("joint", seed=seed)
        options = [
            *("--max-proposals", str(size.proposals)),
            *("--fine-tune-steps", str(size.fine_tune_steps)),
            *("--windows-per-step", str(size.windows_per_step)),
        ]
        if system == "rcnn":
            options += size.windows
        else:
            options += ["--fc-widths", *map(str, size.fc_widths)]
            options += ["--scales", *map(str, size.scales), "--scale-cap", str(2 * size.cap)]
        return self._train(system, ["--system", system, *options], seed)

    def train_svm(self, name: str, checkpoint: str, seed: int = 0) -> str:
        """Train SVMs on the features of a Fast R-CNN."""
        output = str(self.folder / "trained" / name_seed(name, seed))
        self.steps.run_job(
            *("train", *self._list_training_data(), "--recipe", self.size.recipe),
            *("--system", "fast-rcnn-svm", "--weights", checkpoint),
            *("--max-proposals", str(self.size.proposals)),
            *("--seed", str(seed), "--output", output),
        )
        return output

    def _train(self, name: str, options: Sequence[str], seed: int) -> str:
        output = str(self.folder / "trained" / name_seed(name, seed))
        weights = () if self.options.weights is None else ("--weights", self.options.weights)
        self.steps.run_job(
            *("train", *self._list_training_data(), "--recipe", self.size.recipe, *weights),
            *(*options, "--seed", str(seed), "--output", output),
        )
        return output

    def detect(self, name: str, checkpoint: str, *changed: str) -> str:
        """Detect in the test images, with changed options; returns the output."""
        output = str(self.folder / "detected" / name)
        base = (
            *("--max-proposals", str(self.size.proposals), "--image-seconds", "3600"),
            *("--rule", self.options.rule),
        )
        self.steps.run_job(
            *("detect", "--manifest", self.options.test_manifest),
            *("--proposals", self.options.test_proposals, "--checkpoint", checkpoint),
            *(*_drop_options(base, changed), *changed, "--output", output),
        )
        return output

    def detect_each(self, name: str, checkpoints: Sequence[str], *changed: str) -> list[str]:
        """Detect with the checkpoint of each seed."""
        return [
            self.detect(name_seed(name, seed), checkpoint, *changed)
            for seed, checkpoint in enumerate(checkpoints)
        ]

    def train_each(self, name: str, *changed: str, as_paper: bool = False) -> list[str]:
        """Train Fast R-CNN with each seed."""
        return [self.train(name, *changed, seed=seed, as_paper=as_paper) for seed in self.seeds]

    @property
    def seeds(self) -> range:
        """Of the trainings of each row."""
        return range(self.options.seeds)

    @property
    def default_freeze(self) -> str:
        """The last stage that trainings fix if they do not say."""
        recipe = get_recipe(self.size.recipe)
        if self.options.weights is None:
            return "none"
        return recipe.freeze_until or BACKBONES[recipe.network].freeze_until

    def build_row(
        self,
        table: str,
        name: str,
        outputs: Sequence[str],
        baseline: Reference | None = None,
        *,
        paper: str = "",
        figures: Mapping[str, float] | None = None,
        note: str = "",
        rests_on: Sequence[str] = (),
    ) -> Row:
        """A row from the detections of each seed.

        Args:
            table: the table's name.
            name: what a reader calls the row.
            outputs: detections, one per seed.
            baseline: what they are compared with; None: this is the first row.
            paper: the row's key in `PAPER`.
            figures: other figures.
            note: what limits them.
            rests_on: other outputs that they are from.
        """
        scores = self._score_each(outputs, baseline)
        means = {
            score: average_estimates([seed.estimates[score] for seed in scores])
            for score in (MAP, *FINER)
        }
        map50 = means.pop(MAP)
        differences = (score.estimates[MAP].difference for score in scores)
        return Row(
            name,
            map50.value,
            map50.difference,
            (map50.low, map50.high),
            len(outputs),
            "" if baseline is None else baseline.name,
            figures or {},
            PAPER.get((table, paper), ""),
            note,
            self.steps.list_commands(*rests_on, *(score.output for score in scores)),
            tuple(score.estimates[MAP].value for score in scores),
            means,
            tuple(difference for difference in differences if difference is not None),
        )

    def _score_each(self, outputs: Sequence[str], baseline: Reference | None) -> list[Score]:
        """Scores of each seed, compared with the baseline's same seed."""
        manifest = self.options.test_manifest
        if baseline is None:
            return [self.steps.score(output, manifest) for output in outputs]
        pairs = zip(baseline.outputs, outputs, strict=True)
        return [self.steps.compare(*pair, manifest) for pair in pairs]

    @property
    def folder(self) -> Path:
        """Of all outputs."""
        return self.steps.folder

    def _list_training_data(self) -> tuple[str, ...]:
        return (
            *("--manifest", self.options.manifest),
            *("--proposals", self.options.proposals),
        )


def average_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of each number; all have a difference, or none has."""
    differences = [e.difference for e in estimates if e.difference is not None]
    return Estimate(
        mean(e.value for e in estimates),
        mean(e.low for e in estimates),
        mean(e.high for e in estimates),
        mean(differences) if differences else None,
    )


def name_seed(name: str, seed: int) -> str:
    """The name of a seed's output: the first seed has none of its own."""
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
