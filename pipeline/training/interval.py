"""What happened in the steps between two records of the log."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import distributed

from pipeline.training.logs import Record
from pipeline.training.step import StepResult


@dataclass
class Interval:
    """Sums over this worker's steps since the last record."""

    steps: int = 0
    classification: float = 0.0
    localisation: float = 0.0
    foreground: int = 0
    background: int = 0
    images: int = 0
    target_squares: float = 0.0
    skipped: int = 0
    waited: float = 0.0
    """Seconds."""
    seconds: float = 0.0
    gradient_norm: float = 0.0

    def add(self, result: StepResult, skipped: int, waited: float, seconds: float) -> None:
        """Count a step."""
        self.steps += 1
        self.classification += float(result.classification)
        self.localisation += float(result.localisation)
        self.foreground += result.foreground
        self.background += result.background
        self.images += result.images
        self.target_squares += result.target_squares
        self.skipped += skipped
        self.waited += waited
        self.seconds += seconds
        self.gradient_norm += result.gradient_norm

    def over_all_workers(self, workers: int, device: torch.device) -> Interval:
        """The sums over all workers; steps and gradient norms, which are the same on all, stay."""
        if workers == 1:
            return self
        names = [name for name in vars(self) if name not in ("steps", "gradient_norm")]
        values = torch.tensor([float(getattr(self, n)) for n in names], dtype=torch.float64)
        told = values.to(device)
        distributed.all_reduce(told)
        summed = dict(zip(names, told.tolist(), strict=True))
        return Interval(steps=self.steps, gradient_norm=self.gradient_norm, **summed)

    def record(
        self,
        step: int,
        *,
        workers: int,
        epoch: float,
        learning_rate: float,
        box_loss_weight: float,
        skipped: int,
    ) -> Record:
        """The log's record of sums over all workers."""
        # Each worker's loss is divided by its share of the RoIs: the mean over workers is the loss.
        per_step = self.steps * workers
        classification = self.classification / per_step
        localisation = self.localisation / per_step
        return Record(
            step=step,
            epoch=epoch,
            loss=classification + box_loss_weight * localisation,
            loss_class=classification,
            loss_box=localisation,
            learning_rate=learning_rate,
            gradient_norm=self.gradient_norm / self.steps,
            foreground=self.foreground / max(self.images, 1),
            background=self.background / max(self.images, 1),
            images=int(self.images),
            skipped=skipped,
            images_per_second=self.images / max(self.seconds / workers, 1e-9),
            data_wait=self.waited / max(self.seconds, 1e-9),
            target_rms=math.sqrt(self.target_squares / max(self.foreground, 1)),
        )
