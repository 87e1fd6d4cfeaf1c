"""Training on Ray Train: 1..N workers that survive the death of any of them, and of the driver.

States lie in the output, not in Ray's checkpoints: a worker starts from the latest one whoever wrote it,
so a restart by Ray Train and a rerun of the command are the same thing.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import Any

import ray

from pipeline import run_record, storage
from pipeline.engine import cluster
from pipeline.engine.training_board import Board, TrainingProgress
from pipeline.engine.training_workers import Workers, placed
from pipeline.errors import MismatchedOutput, PipelineError, TrainingFailed
from pipeline.manifest import Manifest
from pipeline.run_record import RunRecord
from pipeline.training.logs import Record
from pipeline.training.recipe import Recipe
from pipeline.training.run import TrainingRun, initial_network
from pipeline.training.source import Source, open_manifests, open_sources
from pipeline.training.survey import survey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSummary:
    """What a training came to."""

    output: str
    steps: int
    images: int
    """Pictures per epoch."""
    last: Record | None
    """The last record of the log; none if nothing was left to do."""
    seconds: float

    def lines(self) -> list[str]:
        """What a person wants to know at the end."""
        told = []
        if self.last is None:
            told.append(f"training was finished already: {self.steps} steps, nothing was done")
        else:
            told.append(
                f"{self.steps} steps over {self.images} images ({self.last.epoch:.2f} epochs), "
                f"loss {self.last.loss:.3f}, {self.last.skipped} images skipped, {self.seconds:.0f} s"
            )
        told.append(f"checkpoint: {storage.shown(self.output)}")
        return told


@dataclass(frozen=True)
class Execution:
    """How a training is carried out; none of it changes the result."""

    workers: int | None = None
    """Each takes the recipe's pictures per step. None: one per GPU, or the step's pictures divided
    among as many one-thread workers as there are cores."""
    checkpoint_every: int = 250
    """Steps between resumable states."""
    log_every: int = 20
    """Steps between records of the log."""
    max_failures: int = 3
    """Worker deaths after which the run gives up; a rerun goes on from the latest state."""
    no_capacity_after: float = 300.0
    """Seconds to wait for nodes that can hold the workers."""


def run(
    manifest_uris: Sequence[str],
    proposal_uris: Sequence[str],
    output_uri: str,
    recipe: Recipe,
    *,
    weights: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    execution: Execution = Execution(),
) -> TrainingSummary:
    """Train a detector, or go on with a training that was interrupted.

    Args:
        manifest_uris: annotated datasets of the same classes.
        proposal_uris: one per manifest, in the same order.
        output_uri: folder for the final model; states, logs and run.json lie in it too.
        recipe: how to train.
        weights: pretrained weights, as `load_pretrained` takes them.
        seed: of initialisation, order, flips and RoIs.
        overwrite: remove what a training with other settings wrote there.
        execution: workers, states, patience.

    Raises:
        PipelineError: a subclass that says what is wrong; wrong input is found before Ray starts.
    """
    output = storage.absolute(output_uri)
    weights = None if weights is None else _located(weights)
    manifests = open_manifests(manifest_uris)
    sources = open_sources(manifests, proposal_uris)
    datasets = [_described(source) for source in sources]
    started = monotonic()
    surveyed = survey(sources, recipe)
    told = TrainingRun(
        output,
        recipe,
        sources,
        surveyed,
        weights=weights,
        seed=seed,
        checkpoint_every=execution.checkpoint_every,
        log_every=execution.log_every,
    )
    initial_network(told)  # finds weights that do not fit before Ray starts
    storage.check_writable(output)
    with cluster.connected():
        workers = placed(recipe, execution.workers, execution.no_capacity_after)
        told = replace(told, recipe=workers.recipe, workers=workers.count)
        record = RunRecord(
            "train",
            {"datasets": datasets, "weights": _digest(weights), **told.settings()},
            _inputs(manifests, proposal_uris, weights),
        )
        if _opened(output, record, overwrite):
            return TrainingSummary(output, told.steps, surveyed.images, None, 0.0)
        log.info(
            "training on %d images with %d objects (proposals cover %.1f %%), %d steps, %s",
            surveyed.images,
            surveyed.objects,
            100 * surveyed.recall,
            told.steps,
            workers,
        )
        last = _fit(told, workers, execution)
    return TrainingSummary(output, told.steps, surveyed.images, last, monotonic() - started)


def _described(source: Source) -> dict[str, Any]:
    """What identifies a dataset and its proposals, wherever they lie."""
    return {"dataset": source.proposals.dataset, "proposals": source.proposals.provenance}


def _located(weights: str) -> str:
    """The weights' absolute URI; torchvision's names stay as they are."""
    return weights if "_Weights." in weights else storage.absolute(weights)


def _digest(weights: str | None) -> str | None:
    if weights is None or "_Weights." in weights:
        return weights
    return hashlib.sha256(storage.read(weights)).hexdigest()


def _inputs(
    manifests: Sequence[Manifest], proposals: Sequence[str], weights: str | None
) -> dict[str, Any]:
    return {
        "manifest": [storage.shown(manifest.uri) for manifest in manifests],
        "proposals": [storage.shown(storage.absolute(uri)) for uri in proposals],
        "weights": None if weights is None else storage.shown(weights),
    }


def _opened(output: str, record: RunRecord, overwrite: bool) -> bool:
    """Make the output ready for this training; tells whether it is finished already.

    Raises:
        MismatchedOutput: another run wrote there, and `overwrite` is not set.
    """
    from pipeline.training import state  # noqa: PLC0415  imports torch

    before = run_record.read_record(output)
    found = [] if before is None else run_record.differences(before, record)
    if found and not overwrite:
        raise MismatchedOutput(
            f"{storage.shown(output)} was written by a run with other settings ({'; '.join(found)}): "
            "choose another --output or pass --overwrite"
        )
    if before is None or overwrite:
        state.clear(output)
        record.write(output)
    latest = state.latest(output)
    if latest is not None and latest.step:
        log.info("an earlier run of this training came to step %d", latest.step)
    return latest is not None and latest.finished


def _fit(told: TrainingRun, workers: Workers, execution: Execution) -> Record | None:
    """Run Ray Train until the final model is written; the last record of this run."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    from ray import train  # noqa: PLC0415  takes two seconds
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415

    board = Board.remote()  # type: ignore[attr-defined]
    progress = TrainingProgress(board, told.steps)
    scratch = tempfile.mkdtemp(
        prefix="ray-train-"
    )  # Ray Train insists on a folder; nothing is kept
    trainer = TorchTrainer(
        _work,
        train_loop_config={"run": told, "board": board, "threads": workers.cpus},
        torch_config=TorchConfig(timeout_s=600),
        scaling_config=train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=train.RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            failure_config=train.FailureConfig(max_failures=execution.max_failures),
            logging_config=train.LoggingConfig("WARNING"),  # type: ignore[call-arg]
        ),
    )
    try:
        with progress.shown():
            trainer.fit()
    except train.TrainingFailedError as error:
        raise _reason(error, told.output) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if progress.failure is not None:
        raise TrainingFailed(progress.failure)
    return progress.last


def _work(config: dict[str, Any]) -> None:
    """One worker of Ray Train."""
    import torch  # noqa: PLC0415
    from ray import train  # noqa: PLC0415
    from ray.train.torch import get_device  # noqa: PLC0415

    from pipeline.training.loop import train as train_worker  # noqa: PLC0415

    torch.set_num_threads(config["threads"])
    board = config["board"]
    device = get_device()
    try:
        train_worker(
            config["run"],
            rank=train.get_context().get_world_rank(),
            device=device,
            ingest_threads=1 if device.type == "cpu" else min(8, config["threads"]),
            report=board.post.remote,
            saved=lambda record: train.report(asdict(record)),
        )
    except (
        TrainingFailed
    ) as error:  # lies in the data: all workers stop, and trying again is no use
        ray.get(board.fail.remote(str(error)))


def _reason(error: Exception, output: str) -> PipelineError:
    """What made Ray Train give up: a worker's own named error, or what Ray says."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, PipelineError):
                return cause
            cause = getattr(cause, "_base_exc", None) or cause.__cause__
    first = next(iter(failures.values()), error)
    lines = [line for line in str(first).splitlines() if line.strip()]
    return TrainingFailed(
        f"training stopped: {lines[-1] if lines else type(first).__name__}; "
        f"the same command goes on from the latest state in {storage.shown(output)}"
    )
