"""A training on Ray Train: its workers, what each of them does, and why they stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from dataclasses import asdict
from math import ceil
from typing import Any

import ray

from pipeline import storage, store_options
from pipeline.engine import cluster
from pipeline.engine.train.board import Board, TrainingProgress
from pipeline.engine.train.validation import Validator
from pipeline.engine.train.workers import Workers
from pipeline.errors import NoCapacity, PipelineError, StorageError, TrainingFailed
from pipeline.training.logs import Record
from pipeline.training.run import TrainingRun

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Has a worker's large feature maps on huge pages where the kernel gives them on request: each step
allocates them anew, and the page faults of small pages were a tenth of a step on the CPU."""


START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Ray Train's variable: seconds in which all workers must have found room and started, else it tries anew."""


def fit(
    told: TrainingRun,
    workers: Workers,
    validator: Validator | None,
    *,
    max_failures: int,
    no_capacity_after: float,
) -> Record | None:
    """Run Ray Train until the final model is written; the last record of this run.

    Raises:
        TrainingFailed: the data made training stop, or more than `max_failures` workers died.
        NoCapacity: for about `no_capacity_after` seconds there was no room for all workers.
        PipelineError: what a worker found wrong with what was asked for, such as a damaged state.
        StorageError: a store that failed each time a worker was started.
    """
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    per_try = float(os.environ.setdefault(START_TIMEOUT, "60"))
    if len(cluster.capacity().nodes) == 1:  # a process less: nothing is left when the one node goes
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray import train  # noqa: PLC0415  takes two seconds
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415

    board = Board.remote()  # type: ignore[attr-defined]
    progress = TrainingProgress(board, told.steps)
    # Ray Train insists on a folder; nothing is kept in it.
    scratch = tempfile.mkdtemp(prefix="ray-train-")
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "run": told,
            "board": board,
            "threads": workers.cpus,
            "validate": validator,
            # A reference: Ray Train keeps a record of the rest of this configuration.
            "stores": ray.put(store_options.used()),
        },
        # While the first worker validates the others wait for it.
        torch_config=TorchConfig(timeout_s=600 if validator is None else 4 * 3600),
        scaling_config=train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=train.RunConfig(
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            failure_config=train.FailureConfig(  # type: ignore[call-arg]
                max_failures=max_failures,
                controller_failure_limit=max(1, ceil(no_capacity_after / per_try) - 1),
            ),
            logging_config=train.LoggingConfig("WARNING"),
            worker_runtime_env={"env_vars": HUGE_PAGES},
        ),
    )
    try:
        with progress.shown():
            trainer.fit()
    except train.TrainingFailedError as error:
        raise (progress.failure or _reason(error, workers, told.output)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if progress.failure is not None:
        raise progress.failure
    return progress.last


def _work(config: dict[str, Any]) -> None:
    """One worker of Ray Train."""
    import torch  # noqa: PLC0415
    from ray import train  # noqa: PLC0415
    from ray.train.torch import get_device  # noqa: PLC0415

    from pipeline.training.loop import train as train_worker  # noqa: PLC0415

    store_options.use(ray.get(config["stores"]))
    torch.set_num_threads(config["threads"])
    board = config["board"]
    if ray.get(board.failed.remote()):
        return  # another worker found what trying again cannot mend; this is Ray Train trying again
    device = get_device()
    try:
        train_worker(
            config["run"],
            rank=train.get_context().get_world_rank(),
            device=device,
            ingest_threads=1 if device.type == "cpu" else min(8, config["threads"]),
            report=board.post.remote,
            saved=lambda record: train.report(asdict(record)),
            validate=config["validate"],
        )
    except StorageError:
        raise
    except TrainingFailed as error:
        ray.get(board.fail.remote(error))  # all workers find it at the same step and return
    except PipelineError as error:
        # In what was asked for, and trying again is no use. Others may not have found it and wait for
        # this worker's gradients: raised, it makes Ray Train end them.
        ray.get(board.fail.remote(error))
        raise


def _reason(error: Exception, workers: Workers, output: str) -> PipelineError:
    """What made Ray Train give up: a worker's own named error, want of room, or what Ray says."""
    again = f"the same command goes on from the latest state in {storage.shown(output)}"
    if "Timeout" in type(getattr(error, "controller_failure", None)).__name__:
        each = "a GPU and " if workers.gpu else ""
        return NoCapacity(
            f"no room for {workers.count} training workers of {each}{workers.cpus} CPU each, which other "
            f"jobs or lost nodes take; {again}"
        )
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
        f"training stopped: {lines[-1] if lines else type(first).__name__}; {again}"
    )
