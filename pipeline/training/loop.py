"""The training loop of one worker: from the latest state to the final model."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
import torch
from torch import distributed

from pipeline import storage
from pipeline.detector import checkpoint
from pipeline.detector.network import FastRCNN
from pipeline.detector.targets import fold_targets
from pipeline.errors import TrainingFailed
from pipeline.training import state
from pipeline.training.dataset import Dataset, Sample, SampleStream, Skipped
from pipeline.training.logs import Record, TrainingLog
from pipeline.training.optimisation import optimiser, schedule, set_rates
from pipeline.training.run import TrainingRun, initial_network
from pipeline.training.step import StepResult, TrainingStep

log = logging.getLogger(__name__)

MAX_SKIPPED = 0.05
"""Share of pictures that may be unreadable; above it training stops, as the detection runs do."""
FEWEST_JUDGED = 200
"""Pictures after which that share is looked at."""


@dataclass
class Interval:
    """Sums over this worker's steps since the last record."""

    steps: int = 0
    classification: float = 0.0
    localisation: float = 0.0
    foreground: int = 0
    background: int = 0
    images: int = 0
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


def train(
    run: TrainingRun,
    *,
    rank: int = 0,
    device: torch.device | None = None,
    ingest_threads: int = 1,
    report: Callable[[Record], None] | None = None,
    saved: Callable[[Record], None] | None = None,
) -> None:
    """Train from the latest state of the output on, as worker `rank` of `run.workers`.

    With several workers the process group must be up. Worker 0 writes states, logs and, at the end,
    the model with the targets' statistics folded into its last layer.

    Args:
        run: what to train.
        rank: this worker.
        device: none takes the CPU.
        ingest_threads: that prepare samples ahead.
        report: called on worker 0 with each record of the log.
        saved: called on every worker with the last record when a state has been written.

    Raises:
        TrainingFailed: a loss or gradient that is not finite, or too many unreadable pictures.
        InvalidCheckpoint: a state or weights that do not fit.
        StorageError: a state could not be written; the one before is still the latest.
    """
    worker = _Worker(
        run,
        rank,
        device or torch.device("cpu"),
        ingest_threads=ingest_threads,
        report=report,
        saved=saved,
    )
    worker.work()


class _Worker:
    def __init__(
        self,
        run: TrainingRun,
        rank: int,
        device: torch.device,
        *,
        ingest_threads: int,
        report: Callable[[Record], None] | None,
        saved: Callable[[Record], None] | None,
    ) -> None:
        self.run, self.rank, self.device = run, rank, device
        self.threads = ingest_threads
        self.report, self.saved = report, saved
        latest = state.latest(run.output)
        self.finished = latest is not None and latest.finished
        self.step = 0 if latest is None else latest.step
        self.skipped = 0
        self.model, pretrained = initial_network(run)
        self.model.train()
        self.optimiser = optimiser(self.model, run.recipe, pretrained, run.workers)
        self.preprocessing = run.preprocessing()
        self.training_step = TrainingStep(
            self.model,
            self.optimiser,
            run.recipe,
            self.preprocessing,
            device=device,
            workers=run.workers,
            seed=run.seed,
            rank=rank,
        )
        if latest is not None:
            self._resume(latest.step)
        self.log = TrainingLog(run.output, self.step) if rank == 0 else None

    def _resume(self, step: int) -> None:
        values = state.load(self.run.output, step)
        self.model.load_state_dict(values["model"])
        self.optimiser.load_state_dict(values["optimiser"])
        self.skipped = values["skipped"]
        log.info("resumed at step %d of %d", step, self.run.steps)

    def work(self) -> None:
        if self.finished:
            return
        run = self.run
        dataset = Dataset(
            run.sources, run.recipe, self.preprocessing, run.survey.statistics, run.seed
        )
        stream = SampleStream(
            dataset,
            run.plan(),
            start=self.step * run.images_per_step,
            rank=self.rank,
            workers=run.workers,
            threads=self.threads,
            ahead=4 * run.recipe.images_per_step,
        )
        try:
            self._steps(iter(stream))
        finally:
            stream.close()
        if self.rank == 0:
            self._export()

    def _steps(self, samples: Iterator[Sample | Skipped]) -> None:
        run, interval = self.run, Interval()
        while self.step < run.steps:
            started = perf_counter()
            taken = list(islice(samples, run.recipe.images_per_step))
            waited = perf_counter() - started
            usable = [sample for sample in taken if isinstance(sample, Sample)]
            for missed in taken:
                if isinstance(missed, Skipped):
                    log.warning("picture %r is skipped: %s", missed.image_id, missed.reason)
            rate = set_rates(self.optimiser, schedule(run.recipe, self.step, run.steps))
            result = self.training_step(usable, self.step)
            if not np.isfinite(result.gradient_norm):
                self._stop_at(usable, result)
            self.step += 1
            interval.add(result, len(taken) - len(usable), waited, perf_counter() - started)
            state_due = self.step % run.checkpoint_every == 0 or self.step == run.steps
            if state_due or self.step % run.log_every == 0:
                told = interval.over_all_workers(run.workers, self.device)
                record = self._record(told, rate)
                interval = Interval()
                if state_due:
                    self._save(record)

    def _record(self, told: Interval, rate: float) -> Record:
        run = self.run
        self.skipped += int(told.skipped)
        seen = self.step * run.images_per_step
        if seen >= FEWEST_JUDGED and self.skipped > MAX_SKIPPED * seen:
            raise TrainingFailed(
                f"{self.skipped} of {seen} pictures could not be read by step {self.step}; "
                "the reasons are in the workers' log"
            )
        # Each worker's loss is divided by its share of the RoIs, so the mean over workers is the loss.
        per_step = told.steps * run.workers
        classification = told.classification / per_step
        localisation = told.localisation / per_step
        record = Record(
            step=self.step,
            epoch=round(seen / run.survey.images, 4),
            loss=classification + run.recipe.box_loss_weight * localisation,
            loss_class=classification,
            loss_box=localisation,
            learning_rate=rate,
            gradient_norm=told.gradient_norm / told.steps,
            foreground=told.foreground / max(told.images, 1),
            background=told.background / max(told.images, 1),
            images=int(told.images),
            skipped=self.skipped,
            images_per_second=told.images / max(told.seconds / run.workers, 1e-9),
            data_wait=told.waited / max(told.seconds, 1e-9),
        )
        if self.log is not None:
            self.log.records.append(record)
            if self.report is not None:
                self.report(record)
        return record

    def _save(self, record: Record) -> None:
        if self.log is not None:
            self.log.put()
            values = {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "skipped": self.skipped,
            }
            state.save(self.run.output, self.step, values)
        if self.saved is not None:
            self.saved(record)

    def _stop_at(self, samples: list[Sample], result: StepResult) -> None:
        """Keep the samples of a step whose gradient is not finite, and stop."""
        parts = float(result.classification), float(result.localisation)
        mine = not np.isfinite(sum(parts))
        ids = ", ".join(repr(sample.image_id) for sample in samples)
        where = storage.join(
            self.run.output, "logs", f"not-finite-step-{self.step}-worker-{self.rank}.npz"
        )
        arrays = {
            f"{name}_{index}": getattr(sample, name)
            for index, sample in enumerate(samples)
            for name in ("picture", "rois", "labels", "targets")
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, image_ids=[s.image_id for s in samples], **arrays)
        storage.put(where, buffer.getvalue())
        raise TrainingFailed(
            f"step {self.step}: the {'loss' if mine else 'gradient'} is not finite (classification "
            f"{parts[0]:.3g}, boxes {parts[1]:.3g}) with images {ids}; they and their RoIs are in "
            f"{storage.shown(where)}; try a lower learning rate or gradient-clip"
        )

    def _export(self) -> None:
        run, statistics = self.run, self.run.survey.statistics
        exported = _copy(self.model)
        fold_targets(exported, statistics.means, statistics.stds)
        extra = {"recipe": run.recipe.as_settings(), "steps": run.steps, "seed": run.seed}
        checkpoint.save(run.output, exported, self.preprocessing, extra=extra)
        state.point_to(run.output, self.step, finished=True)


def _copy(model: FastRCNN) -> FastRCNN:
    copy = FastRCNN(model.architecture)
    copy.load_state_dict(model.state_dict())
    return copy
