"""The training loop of one worker: from the latest state to the final model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from time import perf_counter

import numpy as np
import torch

from pipeline import storage
from pipeline.detector import checkpoint
from pipeline.detector.network import FastRCNN
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.targets import fold_targets
from pipeline.errors import TrainingFailed
from pipeline.training import state
from pipeline.training.dataset import Dataset, Sample, SampleStream, Skipped
from pipeline.training.interval import Interval
from pipeline.training.logs import Record, TrainingLog
from pipeline.training.not_finite import stop_at
from pipeline.training.optimisation import optimiser, schedule, set_rates
from pipeline.training.run import TrainingRun, initial_network
from pipeline.training.step import TrainingStep

log = logging.getLogger(__name__)

Validate = Callable[[FastRCNN, Preprocessing], float]

BEST = "best"
"""Folder of the checkpoint that validation liked best."""
MAX_SKIPPED = 0.05
"""Share of images that may be unreadable; above it training stops, as the detection runs do."""
FEWEST_JUDGED = 200
"""Images after which that share is looked at."""


def train(
    run: TrainingRun,
    *,
    rank: int = 0,
    device: torch.device | None = None,
    ingest_threads: int = 1,
    report: Callable[[Record], None] | None = None,
    saved: Callable[[Record], None] | None = None,
    validate: Validate | None = None,
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
        validate: gives a network's score, the larger the better; called on worker 0, the others wait.

    Raises:
        TrainingFailed: a loss or gradient that is not finite, or too many unreadable images.
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
        validate=validate,
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
        validate: Validate | None,
    ) -> None:
        self.run, self.rank, self.device = run, rank, device
        self.threads = ingest_threads
        self.report, self.saved, self.validate = report, saved, validate
        latest = state.latest(run.output)
        self.finished = latest is not None and latest.finished
        self.step = 0 if latest is None else latest.step
        self.skipped = 0
        self.model, loaded = initial_network(run.architecture(), run.weights, run.seed)
        self.model.train()
        self.pretrained = loaded.parameters
        self.preprocessing = run.preprocessing()
        self._begin_phase()
        if latest is not None:
            self._resume(latest.step)
        self.log = TrainingLog(run.output, self.step) if rank == 0 else None

    def _begin_phase(self) -> None:
        """Make optimiser and step for the phase that the next step belongs to: all, or the box layer."""
        run, self.recipe = self.run, self.run.recipe
        self.boxes_alone = run.joint_steps <= self.step < run.steps
        if self.boxes_alone:
            self.model.requires_grad_(False)
            self.model.bbox_pred.requires_grad_(True)
            self.recipe = replace(run.recipe, box_loss_weight=1.0)
        self.optimiser = optimiser(self.model, self.recipe, self.pretrained, run.rate_factor)
        self.training_step = TrainingStep(
            self.model,
            self.optimiser,
            self.recipe,
            self.preprocessing,
            device=self.device,
            workers=run.workers,
            seed=run.seed,
            rank=self.rank,
        )

    def _rate(self) -> float:
        """Set the learning rates of the next step; each phase has the whole schedule."""
        run = self.run
        first, last = (run.joint_steps, run.steps) if self.boxes_alone else (0, run.joint_steps)
        return set_rates(self.optimiser, schedule(self.recipe, self.step - first, last - first))

    def _resume(self, step: int) -> None:
        values = state.load(self.run.output, step)
        self.model.load_state_dict(values["model"])
        if values["boxes_alone"] == self.boxes_alone:
            self.optimiser.load_state_dict(values["optimiser"])
            self.training_step.scaler.load_state_dict(values.get("scaler", {}))  # older: none
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
            if self.step == run.joint_steps and not self.boxes_alone:
                self._begin_phase()
            started = perf_counter()
            taken = list(islice(samples, run.recipe.images_per_step))
            waited = perf_counter() - started
            usable = [sample for sample in taken if isinstance(sample, Sample)]
            for missed in taken:
                if isinstance(missed, Skipped):
                    log.warning("image %r is skipped: %s", missed.image_id, missed.reason)
            rate = self._rate()
            result = self.training_step(usable, self.step)
            if not np.isfinite(result.gradient_norm):
                stop_at(run.output, self.step, self.rank, usable, result)
            self.step += 1
            interval.add(result, len(taken) - len(usable), waited, perf_counter() - started)
            if run.state_due(self.step) or self.step % run.log_every == 0:
                record = self._record(interval.over_all_workers(run.workers, self.device), rate)
                interval = Interval()
                if run.state_due(self.step):
                    self._save(record)

    def _record(self, told: Interval, rate: float) -> Record:
        run = self.run
        self.skipped += int(told.skipped)
        seen = self.step * run.images_per_step
        if seen >= FEWEST_JUDGED and self.skipped > MAX_SKIPPED * seen:
            raise TrainingFailed(
                f"{self.skipped} of {seen} images could not be read by step {self.step}; "
                "the reasons are in the workers' log"
            )
        record = told.record(
            self.step,
            workers=run.workers,
            epoch=round(seen / run.survey.images, 4),
            learning_rate=rate,
            box_loss_weight=self.recipe.box_loss_weight,
            skipped=self.skipped,
        )
        if self.log is not None:
            if self.validate is not None and run.validation_due(self.step):
                record = self._validated(record)
            self.log.records.append(record)
            if self.report is not None:
                self.report(record)
        return record

    def _validated(self, record: Record) -> Record:
        """The record with validation's score; the best network so far is kept beside the final one."""
        assert self.validate is not None
        assert self.log is not None
        exported = self._exported()
        score = self.validate(exported, self.preprocessing)
        before = [r.voc07_map50 for r in self.log.records if r.voc07_map50 is not None]
        if not before or score > max(before):
            extra = {
                "recipe": self.run.recipe.as_settings(),
                "steps": self.step,
                "voc07_map50": score,
            }
            folder = storage.join(self.run.output, BEST)
            checkpoint.save(folder, exported, self.preprocessing, extra=extra)
        return replace(record, voc07_map50=score)

    def _save(self, record: Record) -> None:
        if self.log is not None:
            self.log.put()
            values = {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.training_step.scaler.state_dict(),
                "boxes_alone": self.boxes_alone,
                "skipped": self.skipped,
            }
            state.save(self.run.output, self.step, values)
        if self.saved is not None:
            self.saved(record)

    def _export(self) -> None:
        run = self.run
        extra = {"recipe": run.recipe.as_settings(), "steps": run.steps, "seed": run.seed}
        checkpoint.save(run.output, self._exported(), self.preprocessing, extra=extra)
        state.point_to(run.output, self.step, finished=True)

    def _exported(self) -> FastRCNN:
        """A copy whose deltas are raw."""
        run, statistics = self.run, self.run.survey.statistics
        exported = FastRCNN(self.model.architecture)
        exported.load_state_dict(self.model.state_dict())
        if run.recipe.box_loss_weight > 0 or self.step > run.joint_steps:
            fold_targets(exported, statistics.means, statistics.stds)
        else:  # the box layer was never trained: deltas of 0 keep the proposals' boxes
            torch.nn.init.zeros_(exported.bbox_pred.weight)
            torch.nn.init.zeros_(exported.bbox_pred.bias)
        return exported.eval()
