"""The workers of Ray Train: how they start, what they do, and why they stopped."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from math import ceil
from typing import Any

import ray

from pipeline import store_options, uris
from pipeline.engine import cluster
from pipeline.engine.monitor.metrics import TrainingMetrics
from pipeline.engine.node_versions import read_own_versions
from pipeline.engine.train.board import TrainingProgress, start_board
from pipeline.engine.train.validation import Validator
from pipeline.engine.train.workers import Workers
from pipeline.errors import NoCapacity, PipelineError, StorageError, TrainingFailed
from pipeline.run_record import RunRecord
from pipeline.runs.resume import check_not_taken_over
from pipeline.runs.run_logs import RunLogs
from pipeline.training.logs import TrainingRecord
from pipeline.training.specification import TrainingSpec

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Puts a worker's large feature maps on huge pages if the kernel gives them on request: each step allocates
them again, and the page faults of small pages were a tenth of a step on the CPU."""
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
"""Ray Train's variable: seconds in which all workers must find room and start before it tries again."""


def run_ray_train(
    spec: TrainingSpec,
    workers: Workers,
    validator: Validator | None,
    record: RunRecord,
    *,
    max_failures: int,
    no_capacity_after: float,
    logs: RunLogs | None = None,
) -> TrainingRecord | None:
    """Run Ray Train until the final network is written; returns the last record of this run.

    Raises:
        TakenOver: another training started in the output meanwhile, whose record is not `record`.
        TrainingFailed: the data made training stop, or more than `max_failures` workers died.
        NoCapacity: for about `no_capacity_after` seconds there was no room for all workers.
        PipelineError: an error that a worker found in the request, such as a damaged state.
        StorageError: the store failed each time a worker started.
    """
    start_timeout = _set_environment()
    from ray import train  # noqa: PLC0415  takes two seconds

    board = start_board()
    metrics = TrainingMetrics(record.fingerprint, spec.steps, workers.count)
    progress = TrainingProgress(board, spec.steps, workers.count, logs, metrics)
    attempts = max(1, ceil(no_capacity_after / start_timeout) - 1)
    # Ray Train requires a folder, but nothing stays in it.
    scratch = tempfile.mkdtemp(prefix="ray-train-")
    run_config = train.RunConfig(
        name=f"train-{uuid.uuid4().hex[:8]}",
        storage_path=scratch,
        failure_config=train.FailureConfig(  # type: ignore[call-arg]
            max_failures=max_failures, controller_failure_limit=attempts
        ),
        logging_config=train.LoggingConfig("WARNING"),
        worker_runtime_env={"env_vars": HUGE_PAGES},
    )
    trainer = _build_trainer(spec, workers, validator, record, board=board, run_config=run_config)
    # Ray Train's own handler of Ctrl-C ends the process without a word, in place of the job's.
    trainer._register_sigint_handler = lambda controller: None  # noqa: ARG005
    try:
        with progress.show_progress():
            trainer.fit()
    except train.TrainingFailedError as error:
        if logs is not None:
            _record_failures(logs, error)
        raise (progress.failure or _explain_failure(error, workers, spec.output)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if progress.failure is not None:
        raise progress.failure
    return progress.last


def _set_environment() -> float:
    """Set what Ray Train reads from the environment; returns the seconds of one attempt to start."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if len(cluster.get_capacity().nodes) == 1:
        # Saves a process: if the one node goes, nothing is left.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Ray Train notices only then that a worker has ended; by default every 2 s, which suits many nodes.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    return float(os.environ.setdefault(START_TIMEOUT, "60"))


def _build_trainer(
    spec: TrainingSpec,
    workers: Workers,
    validator: Validator | None,
    record: RunRecord,
    *,
    board: Any,
    run_config: Any,
) -> Any:
    from ray import train  # noqa: PLC0415
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415

    return TorchTrainer(
        _run_worker,
        train_loop_config={
            "spec": spec,
            "record": record,
            "board": board,
            "threads": workers.cpus,
            "validate": validator,
            # A reference: Ray Train stores a record of the rest of this configuration.
            "store_options": ray.put(store_options.get_options()),
        },
        # While the first worker validates, the others wait for it.
        torch_config=TorchConfig(timeout_s=600 if validator is None else 4 * 3600),
        scaling_config=train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=workers.count,
            use_gpu=workers.gpu,
            resources_per_worker=workers.resources,
            label_selector=dict(workers.placement.labels) or None,
        ),
        run_config=run_config,
    )


def _run_worker(config: dict[str, Any]) -> None:
    """One worker of Ray Train."""
    import torch  # noqa: PLC0415
    from ray import train  # noqa: PLC0415
    from ray.train.torch import get_device  # noqa: PLC0415

    from pipeline.engine.train.precision import settle_precision  # noqa: PLC0415
    from pipeline.training.trainer import Trainer  # noqa: PLC0415

    store_options.set_options(ray.get(config["store_options"]))
    torch.set_num_threads(config["threads"])
    board = config["board"]
    board.add_node.remote(read_own_versions())
    if ray.get(board.has_failed.remote()):
        return  # Ray Train retries, but another worker found an error that no retry can repair
    device = get_device()
    spec, record, validator = config["spec"], config["record"], config["validate"]
    rank = train.get_context().get_world_rank()
    try:
        Trainer(
            settle_precision(spec, record, rank=rank, device=device),
            rank=rank,
            device=device,
            ingest_threads=1 if device.type == "cpu" else min(8, config["threads"]),
            on_record=board.post.remote,
            on_state=lambda record: train.report(record.as_json()),
            validate=None
            if validator is None
            else functools.partial(validator, device=str(device)),
            run=record.fingerprint,
            check_owned=functools.partial(check_not_taken_over, spec.output, record),
        ).train()
    except StorageError:
        raise
    except TrainingFailed as error:
        ray.get(board.fail.remote(error))  # all workers find it at the same step and return
    except PipelineError as error:
        # An error in the request, which no retry can repair. The other workers may not have found it and
        # wait for this worker's gradients: raising it makes Ray Train end them.
        ray.get(board.fail.remote(error))
        raise


def _record_failures(logs: RunLogs, error: Exception) -> None:
    """Keep the traceback of each worker that failed, or Ray's message if none did."""
    failures: Mapping[int, Exception] = getattr(error, "worker_failures", None) or {}
    for rank, failure in failures.items():
        lines = str(failure).strip().splitlines()
        values = {"stage": "train", "worker": rank, "error": lines[-1] if lines else "unknown"}
        logs.record_error(values, str(failure))
    if not failures:
        first = str(error).partition("\n")[0]
        logs.record_error({"stage": "train", "error": first}, str(error))


def _explain_failure(error: Exception, workers: Workers, output: str) -> PipelineError:
    """Why Ray Train stopped: a worker's own named error, no room, or Ray's message."""
    rerun = f"the same command resumes from the latest state in {uris.redact_uri(output)}"
    if "Timeout" in type(getattr(error, "controller_failure", None)).__name__:
        gpu = "a GPU and " if workers.gpu else ""
        return NoCapacity(
            f"no room for {workers.count} training workers of {gpu}{workers.cpus} CPU each: other jobs "
            f"use it or nodes were lost; {rerun}"
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
        f"training stopped: {lines[-1] if lines else type(first).__name__}; {rerun}"
    )
