"""Training of R-CNN and SPPnet in stages, each of which runs once and is kept in the output.

R-CNN: fine-tune, features, svm, boxes. SPPnet: maps, fine-tune, features, svm, boxes. Features and maps are
runs over shards; the other stages are one task each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic, process_time
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from pipeline import storage, store_options, uris
from pipeline.baselines.settings import BaselineSettings
from pipeline.engine import cluster
from pipeline.engine.baselines.extraction import Content
from pipeline.engine.baselines.extraction_run import run_extraction
from pipeline.engine.baselines.fine_tuning_stage import PROGRESS, run_fine_tuning
from pipeline.engine.baselines.inputs import BaselineInputs, describe_training
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stages import STAGES_BY_SYSTEM, Stages, locate_worker_totals
from pipeline.engine.baselines.summary import BaselineSummary
from pipeline.engine.baselines.svm_stage import run_box_regression, run_svm_training
from pipeline.engine.baselines.task_device import TaskDevice
from pipeline.engine.baselines.training_record import (
    build_record,
    prepare_output,
    settle_precision,
)
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.shards.retry_policy import unwrap_error
from pipeline.errors import MissingObject, NoCapacity, PipelineError, TrainingFailed
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.runs.placement import Need
from pipeline.runs.resume import check_not_taken_over
from pipeline.runs.run_logs import RunLogs
from pipeline.runs.start_totals import StartTotals
from pipeline.shards import Parts
from pipeline.training import training_files
from pipeline.training.annotated_dataset import AnnotatedDataset, open_annotated_datasets
from pipeline.training.recipe import Recipe

log = logging.getLogger(__name__)

Stage = Callable[[BaselinePlan, Any], Mapping[str, Any]]
"""The work of a stage that is one task, on the training and stored parts."""
REPORT_EVERY = 30.0
"""Seconds between log lines while a stage of one task is at work."""


def run_baseline_training(
    inputs: BaselineInputs,
    recipe: Recipe,
    settings: BaselineSettings,
    *,
    seed: int = 0,
    overwrite: bool = False,
    gpu: bool | None = None,
    max_failures: int = 3,
    no_capacity_after: float = 300.0,
    compute: ProposalSettings | None = None,
) -> BaselineSummary:
    """Train a system, or do the stages that an earlier start left.

    Args:
        inputs: opened and checked.
        recipe: network, optimiser, rates, limits of proposals.
        settings: windows, pyramid, fine-tuning, SVMs, regressors.
        seed: of initialisation, windows and flips.
        overwrite: remove an earlier training from the output and start again.
        gpu: whether features and fine-tuning use GPUs; None: if the cluster has one.
        max_failures: worker deaths that a stage of one task survives.
        no_capacity_after: seconds to wait for a core.
        compute: how to compute proposals if none are stored.

    Raises:
        PipelineError: a subclass that names the problem.
    """
    for line in describe_training(inputs, settings, recipe):
        log.info("%s", line)
    may_grow = not cluster.is_local()
    with cluster.connect_to_cluster():
        uses_gpus = cluster.get_capacity().gpus >= 1 if gpu is None else gpu
        cluster.check_needs([TaskDevice(uses_gpus).need], no_capacity_after, may_grow=may_grow)
        options = RunOptions(overwrite=overwrite, no_capacity_after=no_capacity_after)
        dataset = _open_dataset(inputs, compute or ProposalSettings(), options)
        record = build_record(inputs, dataset, recipe, settings, seed)
        record = prepare_output(inputs.output, record, overwrite=overwrite)
        cluster.await_core(no_capacity_after)
        recipe = settle_precision(
            recipe, record, inputs.output, gpu=uses_gpus, no_capacity_after=no_capacity_after
        )
        plan = _build_plan(inputs, dataset, record, recipe, settings, seed=seed, gpu=uses_gpus)
        with RunLogs(inputs.output):
            stages = _run_stages(plan, no_capacity_after, max_failures)
        check_not_taken_over(inputs.output, record)
    training_files.remove_scratch_files(inputs.output)
    summary = BaselineSummary(
        inputs.output,
        inputs.system,
        inputs.manifest.rows,
        stages.records,
        plan.classes,
        stages.ran,
        images_excluded=dataset.count_excluded(),
    )
    summary.write()
    return summary


def _open_dataset(
    inputs: BaselineInputs, compute: ProposalSettings, options: RunOptions
) -> AnnotatedDataset:
    """The images with their proposals, which are computed first if none are stored."""
    proposals = inputs.proposals
    if proposals is None:
        proposals = uris.join(inputs.output, "proposals")
        run_proposals(inputs.manifest.uri, proposals, compute, options)
    (dataset,) = open_annotated_datasets([inputs.manifest], [proposals], inputs.excluded)
    return dataset


def _build_plan(
    inputs: BaselineInputs,
    dataset: AnnotatedDataset,
    record: RunRecord,
    recipe: Recipe,
    settings: BaselineSettings,
    *,
    seed: int,
    gpu: bool,
) -> BaselinePlan:
    capacity = cluster.get_capacity()
    return BaselinePlan(
        inputs.system,
        inputs.output,
        dataset,
        recipe,
        settings,
        inputs.architecture,
        inputs.preprocessing,
        inputs.weights,
        seed,
        weights_digest=record.settings["weights"],
        gpu=gpu,
        threads=max((host.cpus for host in capacity.hosts), default=1),
    )


def _run_stages(plan: BaselinePlan, no_capacity_after: float, max_failures: int) -> Stages:
    """Run the stages that have no record yet; what is stored is opened only if a later stage needs it."""
    options = RunOptions(
        shard_size=plan.settings.images_per_part, no_capacity_after=no_capacity_after
    )
    stages = Stages(plan.output)
    stored: dict[Content, Parts] = {}

    def extract(content: Content, totals: StartTotals | None = None) -> Mapping[str, Any]:
        maps = open_stored("maps") if plan.system == "sppnet" and content == "features" else None
        stored[content], figures = run_extraction(plan, content, options, maps, totals)
        return figures

    def open_stored(content: Content) -> Parts:
        if content not in stored:  # an earlier start stored all of it: this run finds nothing to do
            extract(content)
        return stored[content]

    def run_alone(name: str, stage: Stage, content: Content | None) -> Mapping[str, Any]:
        parts = None if content is None else open_stored(content)
        device = _choose_device(plan, stage)
        task = device.build_task(_run_stage, max_failures).remote(plan, name, stage, parts)
        return _await_task(plan, name, task, device.need, no_capacity_after)

    maps: Content | None = "maps" if plan.system == "sppnet" else None
    work: dict[str, Callable[[StartTotals], Mapping[str, Any]]] = {
        "maps": lambda totals: extract("maps", totals),
        "fine-tune": lambda _: run_alone("fine-tune", run_fine_tuning, maps),
        "features": lambda totals: extract("features", totals),
        "svm": lambda _: run_alone("svm", run_svm_training, "features"),
        "boxes": lambda _: run_alone("boxes", run_box_regression, "features"),
    }
    for name in STAGES_BY_SYSTEM[plan.system]:
        stages.run(name, work[name])
    return stages


def _choose_device(plan: BaselinePlan, stage: Stage) -> TaskDevice:
    """The GPU, or all cores of the largest node, for fine-tuning; a core for any other stage of one task."""
    if stage is not run_fine_tuning:
        return TaskDevice()
    return TaskDevice(gpu=True) if plan.gpu else TaskDevice(cores=plan.threads)


def _await_task(
    plan: BaselinePlan,
    name: str,
    task: ObjectRef[Mapping[str, Any]],
    need: Need,
    no_capacity_after: float,
) -> Mapping[str, Any]:
    """Wait for a stage, without limit while a living node can hold its task.

    Raises:
        NoCapacity: for `no_capacity_after` seconds none could.
        TrainingFailed: its workers died too often.
        PipelineError: what the stage raises.
    """
    seen = monotonic()
    while not ray.wait([task], timeout=min(REPORT_EVERY, no_capacity_after))[0]:
        if name == "fine-tune":
            _log_progress(plan)
        lack = cluster.describe_missing(need)
        if lack is None:
            seen = monotonic()
        elif monotonic() - seen >= no_capacity_after:
            ray.cancel(task)
            raise NoCapacity(
                f"the stage {name} has waited {no_capacity_after:.0f} s for {lack}: the same command goes on "
                "when the cluster has it"
            )
    try:
        figures: Mapping[str, Any] = ray.get(task)
    except RayError as error:
        cause = unwrap_error(error)
        if isinstance(cause, PipelineError):
            raise cause from error
        raise TrainingFailed(
            f"the stage {name} failed: "
            f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}; "
            "the same command goes on from the last state"
        ) from error
    return figures


def _run_stage(
    plan: BaselinePlan, name: str, stage: Stage, parts: Parts | None
) -> Mapping[str, Any]:
    """The work of the task."""
    store_options.set_options(plan.stores)
    uri = locate_worker_totals(plan.locate(), name)
    with StartTotals(uri, clock=process_time, clock_name="cpu_seconds") as totals:
        figures = dict(stage(plan, parts))
    return figures | {"cpu_seconds": round(totals.compute()["cpu_seconds"], 3)}


def _log_progress(plan: BaselinePlan) -> None:
    try:
        progress = parse_fields(storage.read(plan.locate(PROGRESS)))
        step, loss = progress.read_integer("step"), progress.read_number("loss")
    except (MissingObject, InvalidJson):
        return
    log.info("fine-tuning: step %d of %d, loss %.3f", step, plan.settings.fine_tune_steps, loss)
