"""The result of a training: the lines at its end, and summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage, uris
from pipeline.runs.plan_errors import PlanError, compare_with_plan, format_plan_errors
from pipeline.runs.run_plan import read_plan
from pipeline.training.logs import TrainingRecord, read_log
from pipeline.training.training_files import SUMMARY_NAME


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a training."""

    output: str
    steps: int
    images: int
    """Images per epoch."""
    last: TrainingRecord | None
    """The last record of the log; None if this start did no step."""
    seconds: float = 0.0
    """Of all starts."""
    cpu_seconds: float = 0.0
    """CPU seconds of the workers in all steps and validations."""
    bytes_read: int = 0
    """Bytes of all images that the steps used."""
    plan_errors: Mapping[str, PlanError] = field(default_factory=dict)
    """How far plan.json was off, by figure; empty without a plan of this training."""
    images_excluded: int = 0
    """Images that the list of --exclude leaves out."""
    is_new: bool = True
    """False if an earlier start had finished the training."""

    def as_json(self) -> dict[str, Any]:
        """The content of summary.json."""
        values: dict[str, Any] = {
            "steps": self.steps,
            "images": self.images,
            "images_excluded": self.images_excluded,
            "images_skipped": 0 if self.last is None else self.last.skipped,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": {"train": round(self.cpu_seconds, 3)},
            "counts": {"bytes_read": self.bytes_read},
            "output": uris.redact_uri(self.output),
        }
        if self.plan_errors:
            values["plan"] = {name: error.as_json() for name, error in self.plan_errors.items()}
        return values

    def write(self) -> None:
        """Put summary.json into the output."""
        data = json.dumps(self.as_json(), indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(self.output, SUMMARY_NAME), data)

    def format_lines(self) -> list[str]:
        """The lines to print at the end."""
        if not self.is_new:
            outcome = f"training was finished already: {self.steps} steps, nothing to do"
        elif self.last is None:
            outcome = f"all {self.steps} steps were done already; the network is written again"
        else:
            outcome = (
                f"{self.steps} steps over {self.images} images ({self.last.epoch:.2f} epochs), "
                f"loss {self.last.loss:.3f}, {self.last.skipped} images skipped, {self.seconds:.0f} s"
            )
        lines = [outcome]
        if self.images_excluded:
            lines.append(f"{self.images_excluded} images were left out by --exclude")
        if self.plan_errors:
            lines.append(format_plan_errors(self.plan_errors))
        return [*lines, f"checkpoint: {uris.redact_uri(self.output)}"]


@dataclass(frozen=True)
class TrainingRun:
    """A training that has ended, as its driver knows it."""

    output: str
    fingerprint: str
    steps: int
    images: int
    """Images per epoch."""
    images_per_step: int
    """Over all workers."""
    seconds: float
    """Of all starts."""
    whole_seconds: float | None
    """Of the last start if it did all steps: others say nothing about the time that all steps take."""
    cores: int
    """Of the cluster."""
    gpus: float
    """Of the cluster."""
    gpu_workers: int = 0
    """Workers that held a GPU."""
    images_excluded: int = 0
    """Images that a list leaves out."""

    def summarise(self, last: TrainingRecord | None) -> TrainingSummary:
        """The summary, from the log of all its steps and from its plan if there is one."""
        records = read_log(self.output)
        cpu_seconds = sum(record.cpu_seconds for record in records)
        bytes_read = sum(record.bytes_read for record in records)
        actual = {"core_hours": cpu_seconds / 3600, "bytes_read": float(bytes_read)}
        seconds = sum(record.seconds for record in records)
        actual["gpu_hours"] = seconds * self.gpu_workers / 3600
        if self.whole_seconds is not None:
            actual["wall_seconds"] = self.whole_seconds
        plan = read_plan(self.output, self.fingerprint)
        images = self.steps * self.images_per_step
        errors = (
            {} if plan is None else compare_with_plan(plan, actual, images, self.cores, self.gpus)
        )
        return TrainingSummary(
            self.output,
            self.steps,
            self.images,
            last,
            self.seconds,
            cpu_seconds,
            bytes_read,
            errors,
            self.images_excluded,
        )
