"""Sums over the steps between two records of the training log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import distributed

from pipeline.training.logs import TrainingRecord
from pipeline.training.step import StepResult

SAME_ON_ALL_WORKERS = ("steps", "gradient_norm", "losses")
"""Fields that are not summed over workers; the losses are, by name."""


@dataclass
class StepSums:
    """Sums over this worker's steps since the last record."""

    steps: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    """By name, this worker's share of each."""
    foreground: int = 0
    background: int = 0
    images: int = 0
    target_squares: float = 0.0
    skipped: int = 0
    waited: float = 0.0
    """Seconds that the step waited for samples."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the whole process."""
    bytes_read: int = 0
    """Of encoded images."""
    gradient_norm: float = 0.0

    def add(
        self,
        step: StepResult,
        skipped: int,
        *,
        waited: float,
        seconds: float,
        cpu_seconds: float = 0.0,
        bytes_read: int = 0,
    ) -> None:
        """Count a step."""
        self.steps += 1
        for name, loss in step.losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + float(loss)
        self.foreground += step.foreground
        self.background += step.background
        self.images += step.images
        self.target_squares += step.target_squares
        self.skipped += skipped
        self.waited += waited
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        self.bytes_read += bytes_read
        self.gradient_norm += step.gradient_norm

    def sum_over_workers(self, workers: int, device: torch.device) -> StepSums:
        """The sums over all workers; steps and gradient norms, which all workers share, stay."""
        if workers == 1:
            return self
        names = [name for name in vars(self) if name not in SAME_ON_ALL_WORKERS]
        sums = _all_reduce(
            [*(getattr(self, name) for name in names), *self.losses.values()], device
        )
        counts: dict[str, Any] = dict(zip(names, sums[: len(names)], strict=True))
        losses = dict(zip(self.losses, sums[len(names) :], strict=True))
        return replace(self, **counts, losses=losses)

    def make_record(
        self, step: int, *, workers: int, epoch: float, learning_rate: float, skipped: int
    ) -> TrainingRecord:
        """The log's record of sums over all workers.

        Args:
            step: steps done.
            workers: how many workers the sums are over.
            epoch: passes over the images.
            learning_rate: of the last step.
            skipped: images that could not be read since training began.
        """
        # Each worker's loss is divided by its share of the RoIs: the mean over workers is the loss.
        per_step = self.steps * workers
        return TrainingRecord(
            step=step,
            epoch=epoch,
            losses={name: total / per_step for name, total in self.losses.items()},
            learning_rate=learning_rate,
            gradient_norm=self.gradient_norm / self.steps,
            foreground=self.foreground / max(self.images, 1),
            background=self.background / max(self.images, 1),
            images=int(self.images),
            skipped=skipped,
            images_per_second=self.images / max(self.seconds / workers, 1e-9),
            data_wait=self.waited / max(self.seconds, 1e-9),
            target_rms=math.sqrt(self.target_squares / max(self.foreground, 1)),
            cpu_seconds=round(self.cpu_seconds, 3),
            bytes_read=int(self.bytes_read),
            seconds=round(self.seconds / workers, 3),
        )


def _all_reduce(values: Sequence[float], device: torch.device) -> list[float]:
    sums = torch.tensor([float(value) for value in values], dtype=torch.float64).to(device)
    distributed.all_reduce(sums)
    return [float(value) for value in sums.tolist()]
