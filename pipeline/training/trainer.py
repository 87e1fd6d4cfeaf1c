"""The training of one worker: from the latest state to the final network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from time import perf_counter, process_time

import numpy as np
import torch

from pipeline.detector.network import FastRCNN
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import TrainingFailed
from pipeline.training import state
from pipeline.training.export import copy_with_raw_deltas, read_best_score, save_best, save_final
from pipeline.training.logs import TrainingLog, TrainingRecord
from pipeline.training.not_finite import stop_training
from pipeline.training.optimisation import build_optimiser, compute_rate_factor, set_rates
from pipeline.training.sample_loader import Sample, SampleLoader, SkippedImage
from pipeline.training.sample_stream import SampleStream
from pipeline.training.specification import TrainingSpec, build_initial_network
from pipeline.training.step import TrainingStep
from pipeline.training.step_sums import StepSums

log = logging.getLogger(__name__)

Validate = Callable[[FastRCNN, Preprocessing], float]

MAX_SKIPPED = 0.05
"""Share of images that may be unreadable; above it training stops, as the detection runs do."""
MIN_IMAGES_TO_JUDGE = 200
"""Images after which that share is checked."""


class Trainer:
    """Trains as worker `rank` of `spec.workers`, from the latest state of the output on.

    Several workers need an initialised process group. Worker 0 writes states, logs and, at the end, the
    network with the targets' statistics folded into its last layer.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        *,
        rank: int = 0,
        device: torch.device | None = None,
        ingest_threads: int = 1,
        on_record: Callable[[TrainingRecord], None] | None = None,
        on_state: Callable[[TrainingRecord], None] | None = None,
        validate: Validate | None = None,
        run: str = "",
        check_owned: Callable[[], object] = lambda: None,
    ) -> None:
        """Build the network and load the latest state.

        Args:
            spec: what to train.
            rank: this worker.
            device: None is the CPU.
            ingest_threads: threads that load samples ahead.
            on_record: worker 0 calls it with each record of the log.
            on_state: every worker calls it with the last record after a state is written.
            validate: returns a network's score, the larger the better; worker 0 calls it, others wait.
            run: fingerprint of the run, which its states hold.
            check_owned: raises if another run took the output over; worker 0 calls it before it writes.

        Raises:
            InvalidCheckpoint: the state or the pretrained weights do not fit the network.
        """
        self.spec, self.rank, self.device = spec, rank, device or torch.device("cpu")
        self.threads = ingest_threads
        self.on_record, self.on_state, self.validate = on_record, on_state, validate
        self.run, self.check_owned = run, check_owned
        latest = state.read_latest_state(spec.output, run)
        self.is_finished = latest is not None and latest.is_finished
        self.step = 0 if latest is None else latest.step
        self.skipped = 0
        self.network, loaded = build_initial_network(spec.architecture, spec.weights, spec.seed)
        self.network.train()
        self.pretrained = loaded.parameters
        self.preprocessing = spec.preprocessing
        self._begin_phase()
        if latest is not None:
            self._load_state(latest.step)
        self.log = TrainingLog(spec.output, self.step) if rank == 0 else None

    def train(self) -> None:
        """Train until the final network is written; a finished training does nothing.

        Raises:
            TrainingFailed: a loss or gradient is not finite, or too many images are unreadable.
            StorageError: a state could not be written; the previous one is still the latest.
        """
        if self.is_finished:
            return
        spec = self.spec
        loader = SampleLoader(
            spec.datasets, spec.recipe, self.preprocessing, spec.survey.statistics, spec.seed
        )
        stream = SampleStream(
            loader,
            spec.sample_order,
            start=self.step * spec.images_per_step,
            rank=self.rank,
            workers=spec.workers,
            threads=self.threads,
            ahead=4 * spec.recipe.images_per_step,
        )
        try:
            self._train_steps(iter(stream))
        finally:
            stream.close()
        if self.rank == 0:
            self._finish()

    def _finish(self) -> None:
        """Put the final network, unless a second driver of the same run has put it."""
        spec = self.spec
        self.check_owned()
        latest = state.read_latest_state(spec.output, self.run)
        if latest is not None and latest.is_finished:
            return
        save_final(copy_with_raw_deltas(self.network, spec, self.step), spec)
        self.check_owned()
        state.set_latest_state(spec.output, self.step, is_finished=True, run=self.run)

    def _begin_phase(self) -> None:
        """Build optimiser and step for the next step's phase, which trains all layers or the box layer."""
        spec, self.recipe = self.spec, self.spec.recipe
        self.is_box_phase = spec.joint_steps <= self.step < spec.steps
        if self.is_box_phase:
            self.network.requires_grad_(False)
            self.network.bbox_pred.requires_grad_(True)
            self.recipe = replace(spec.recipe, box_loss_weight=1.0)
        self.optimiser = build_optimiser(
            self.network, self.recipe, self.pretrained, spec.rate_factor
        )
        self.training_step = TrainingStep(
            self.network,
            self.optimiser,
            self.recipe,
            self.preprocessing,
            device=self.device,
            workers=spec.workers,
            seed=spec.seed,
            rank=self.rank,
        )

    def _set_rates(self) -> float:
        """Set the learning rates of the next step; each phase runs through the whole schedule."""
        spec = self.spec
        first, last = (spec.joint_steps, spec.steps) if self.is_box_phase else (0, spec.joint_steps)
        factor = compute_rate_factor(self.recipe, self.step - first, last - first)
        return set_rates(self.optimiser, factor)

    def _load_state(self, step: int) -> None:
        values = state.load_state(self.spec.output, step, self.run)
        self.network.load_state_dict(values["model"])
        if values["boxes_alone"] == self.is_box_phase:
            self.optimiser.load_state_dict(values["optimiser"])
            if values.get("scaler"):  # empty in other precisions than fp16
                self.training_step.scaler.load_state_dict(values["scaler"])
        self.skipped = values["skipped"]
        log.info("resumed at step %d of %d", step, self.spec.steps)

    def _save_state(self, record: TrainingRecord) -> None:
        if self.log is not None:
            self.check_owned()
            self.log.write()
            values = {
                "model": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.training_step.scaler.state_dict(),
                "boxes_alone": self.is_box_phase,
                "skipped": self.skipped,
            }
            state.save_state(self.spec.output, self.step, values, self.run)
        if self.on_state is not None:
            self.on_state(record)

    def _train_steps(self, samples: Iterator[Sample | SkippedImage]) -> None:
        spec, sums = self.spec, StepSums()
        while self.step < spec.steps:
            if self.step == spec.joint_steps and not self.is_box_phase:
                self._begin_phase()
            started, cpu_started = perf_counter(), process_time()
            loaded = list(islice(samples, spec.recipe.images_per_step))
            waited = perf_counter() - started
            usable = [sample for sample in loaded if isinstance(sample, Sample)]
            for image in loaded:
                if isinstance(image, SkippedImage):
                    log.warning("image %r is skipped: %s", image.image_id, image.reason)
            rate = self._set_rates()
            result = self.training_step(usable, self.step)
            if not np.isfinite(result.gradient_norm):
                stop_training(spec.output, self.step, self.rank, usable, result)
            self.step += 1
            sums.add(
                result,
                len(loaded) - len(usable),
                waited=waited,
                seconds=perf_counter() - started,
                cpu_seconds=process_time() - cpu_started,
                bytes_read=sum(sample.bytes_read for sample in usable),
            )
            if spec.is_state_due(self.step) or self.step % spec.log_every == 0:
                record = self._log_steps(sums.sum_over_workers(spec.workers, self.device), rate)
                sums = StepSums()
                if spec.is_state_due(self.step):
                    self._save_state(record)

    def _log_steps(self, sums: StepSums, rate: float) -> TrainingRecord:
        """Make a record of the sums over all workers; worker 0 validates, if due, and logs it."""
        spec = self.spec
        self.skipped += int(sums.skipped)
        images = self.step * spec.images_per_step
        if images >= MIN_IMAGES_TO_JUDGE and self.skipped > MAX_SKIPPED * images:
            raise TrainingFailed(
                f"{self.skipped} of {images} images could not be used by step {self.step}; "
                "the workers' log gives the reasons"
            )
        record = sums.make_record(
            self.step,
            workers=spec.workers,
            epoch=round(images / spec.survey.images, 4),
            learning_rate=rate,
            skipped=self.skipped,
        )
        if self.log is not None:
            if self.validate is not None and spec.is_validation_due(self.step):
                record = self._validate(record, self.validate)
            self.log.records.append(record)
            if self.on_record is not None:
                self.on_record(record)
        return record

    def _validate(self, record: TrainingRecord, validate: Validate) -> TrainingRecord:
        """Add the network's score; the best network so far is saved beside the final one."""
        began = process_time()
        exported = copy_with_raw_deltas(self.network, self.spec, self.step)
        score = validate(exported, self.preprocessing)
        best = read_best_score(self.spec)
        if best is None or score > best:
            self.check_owned()
            save_best(exported, self.spec, self.step, score)
        cpu_seconds = record.cpu_seconds + process_time() - began
        return replace(record, voc07_map50=score, cpu_seconds=round(cpu_seconds, 3))
