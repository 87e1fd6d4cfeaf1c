"""Training of R-CNN and SPPnet in stages, each of which runs once and is kept in the output.

R-CNN: fine-tune, features, svm, boxes. SPPnet: maps, fine-tune, features, svm, boxes. Features and maps are
runs over shards; the other stages are one task each.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline import storage, store_options, uris
from pipeline.baselines.settings import BaselineSettings
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.detector.checkpoint_record import WEIGHTS_NAME
from pipeline.engine import cluster
from pipeline.engine.baselines.extraction import Content
from pipeline.engine.baselines.extraction_run import run_extraction
from pipeline.engine.baselines.fine_tuning_stage import PROGRESS, run_fine_tuning
from pipeline.engine.baselines.inputs import BaselineInputs, describe_training
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stages import STAGES_BY_SYSTEM, Stages
from pipeline.engine.baselines.summary import BaselineSummary
from pipeline.engine.baselines.svm_stage import run_box_regression, run_svm_training
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.shards.retry_policy import unwrap_error
from pipeline.errors import MissingObject, PipelineError, TrainingFailed
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.runs.resume import check_not_taken_over, find_run_to_resume
from pipeline.runs.run_logs import RunLogs
from pipeline.shards import Parts
from pipeline.training import training_files
from pipeline.training.annotated_dataset import AnnotatedDataset, open_annotated_datasets
from pipeline.training.recipe import Recipe

log = logging.getLogger(__name__)

Stage = Callable[[BaselinePlan, Any], Mapping[str, Any]]
"""The work of a stage that is one task, on the training and stored parts."""
REPORT_EVERY = 30.0
"""Seconds between log lines while a stage of one task is at work."""
NO_TABLES = 0
"""Schema version of an output without tables of its own."""


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
    with cluster.connect_to_cluster():
        proposals = inputs.proposals
        if proposals is None:
            proposals = uris.join(inputs.output, "proposals")
            options = RunOptions(overwrite=overwrite, no_capacity_after=no_capacity_after)
            run_proposals(inputs.manifest.uri, proposals, compute or ProposalSettings(), options)
        (dataset,) = open_annotated_datasets([inputs.manifest], [proposals])
        record = _build_record(inputs, dataset, recipe, settings, seed)
        record = _prepare_output(inputs.output, record, overwrite=overwrite)
        cluster.await_core(no_capacity_after)
        capacity = cluster.get_capacity()
        plan = BaselinePlan(
            inputs.system,
            inputs.output,
            dataset,
            _settle_precision(recipe, record, inputs.output),
            settings,
            inputs.architecture,
            inputs.preprocessing,
            inputs.weights,
            seed,
            weights_digest=record.settings["weights"],
            gpu=capacity.gpus >= 1 if gpu is None else gpu,
            threads=max((host.cpus for host in capacity.hosts), default=1),
        )
        options = RunOptions(
            shard_size=settings.images_per_part,
            no_capacity_after=no_capacity_after,
        )
        with RunLogs(inputs.output):
            stages = _run_stages(plan, options, max_failures)
        check_not_taken_over(inputs.output, record)
    training_files.remove_scratch_files(inputs.output)
    summary = BaselineSummary(
        inputs.output,
        inputs.system,
        inputs.manifest.rows,
        stages.records,
        plan.classes,
        stages.ran,
    )
    summary.write()
    return summary


def _run_stages(plan: BaselinePlan, options: RunOptions, max_failures: int) -> Stages:
    """Run the stages that have no record yet; what is stored is opened only if a later stage needs it."""
    stages = Stages(plan.output)
    stored: dict[Content, Parts] = {}

    def extract(content: Content) -> Mapping[str, Any]:
        maps = open_stored("maps") if plan.system == "sppnet" and content == "features" else None
        stored[content], figures = run_extraction(plan, content, options, maps)
        return figures

    def open_stored(content: Content) -> Parts:
        if content not in stored:  # an earlier start stored all of it: this run finds nothing to do
            extract(content)
        return stored[content]

    def run_alone(stage: Stage, content: Content | None) -> Mapping[str, Any]:
        parts = None if content is None else open_stored(content)
        return _run_task(plan, stage, parts, max_failures)

    work: dict[str, Callable[[], Mapping[str, Any]]] = {
        "maps": lambda: extract("maps"),
        "fine-tune": lambda: run_alone(
            run_fine_tuning, "maps" if plan.system == "sppnet" else None
        ),
        "features": lambda: extract("features"),
        "svm": lambda: run_alone(run_svm_training, "features"),
        "boxes": lambda: run_alone(run_box_regression, "features"),
    }
    for name in STAGES_BY_SYSTEM[plan.system]:
        stages.run(name, work[name])
    return stages


def _run_task(
    plan: BaselinePlan,
    stage: Stage,
    parts: Parts | None,
    max_failures: int,
) -> Mapping[str, Any]:
    """Run a stage as one task, which starts again if its worker dies.

    Raises:
        TrainingFailed: its workers died more than `max_failures` times.
        PipelineError: what the stage raises.
    """
    uses_device = stage is run_fine_tuning
    task = _run_stage.options(
        num_cpus=plan.threads if uses_device and not plan.gpu else 1,
        num_gpus=1 if plan.gpu and uses_device else 0,
        max_retries=max_failures,
    ).remote(plan, stage, parts)
    while not ray.wait([task], timeout=REPORT_EVERY)[0]:
        if uses_device:
            _log_progress(plan)
    try:
        figures: Mapping[str, Any] = ray.get(task)
    except RayError as error:
        cause = unwrap_error(error)
        if isinstance(cause, PipelineError):
            raise cause from error
        raise TrainingFailed(
            f"the stage {stage.__name__.removeprefix('run_').replace('_', ' ')} failed: "
            f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}; "
            "the same command goes on from the last state"
        ) from error
    return figures


@ray.remote
def _run_stage(plan: BaselinePlan, stage: Stage, parts: Parts | None) -> Mapping[str, Any]:
    store_options.set_options(plan.stores)
    return stage(plan, parts)


def _log_progress(plan: BaselinePlan) -> None:
    try:
        progress = parse_fields(storage.read(plan.locate(PROGRESS)))
        step, loss = progress.read_integer("step"), progress.read_number("loss")
    except (MissingObject, InvalidJson):
        return
    log.info("fine-tuning: step %d of %d, loss %.3f", step, plan.settings.fine_tune_steps, loss)


def _prepare_output(output: str, record: RunRecord, *, overwrite: bool) -> RunRecord:
    """Make the output ready; returns this run's record, with what an earlier start resolved.

    Raises:
        MismatchedOutput: a training with other settings or of unknown origin wrote the output.
        TakenOver: another training started here at the same time.
    """
    earlier = find_run_to_resume(
        output,
        record,
        overwrite=overwrite,
        list_remains=lambda: training_files.list_training_files(output),
    )
    if earlier is None:
        if overwrite:
            training_files.clear_training(output)
        record.write(output)
    return check_not_taken_over(output, record)


def _build_record(
    inputs: BaselineInputs,
    dataset: AnnotatedDataset,
    recipe: Recipe,
    settings: BaselineSettings,
    seed: int,
) -> RunRecord:
    weights = inputs.weights
    stored = {"dataset": dataset.proposals.dataset, "proposals": dataset.proposals.provenance}
    return RunRecord(
        "train",
        {
            "system": inputs.system,
            "datasets": [stored],
            "annotations": _digest_annotations(dataset),
            "weights": _digest_weights(inputs),
            "recipe": recipe.as_settings(),
            "baseline": settings.as_settings(),
            "classes": list(inputs.architecture.classes),
            "seed": seed,
        },
        {
            "manifest": uris.redact_uri(inputs.manifest.uri),
            "proposals": uris.redact_uri(dataset.proposals.parts.uri),
            "weights": None if weights is None else uris.redact_uri(weights),
        },
        schema_version=NO_TABLES,
    )


def _digest_weights(inputs: BaselineInputs) -> str | None:
    weights = inputs.weights
    if weights is None or is_torchvision_name(weights):
        return weights
    if inputs.system == "fast-rcnn-svm":
        weights = uris.join(weights, WEIGHTS_NAME)
    return hashlib.sha256(storage.read(weights)).hexdigest()


def _digest_annotations(dataset: AnnotatedDataset) -> str:
    """A digest of all objects, so that stages do not go on over other annotations."""
    digest = hashlib.sha256()
    for ordinal in range(len(dataset.shard_rows)):
        for image in dataset.read(ordinal, with_proposals=False).annotations:
            if image is None:
                digest.update(b"none")
                continue
            for values in (image.boxes, image.labels, image.crowd):
                digest.update(len(values).to_bytes(8) + values.tobytes())
    return digest.hexdigest()


def _settle_precision(recipe: Recipe, record: RunRecord, output: str) -> Recipe:
    """The recipe with a precision that is not auto: every start, worker and stage computes in the same one.

    A worker of this cluster says what it supports when the training begins; run.json keeps that.
    """
    if recipe.precision != "auto":
        return recipe
    settled: Any = record.resolved.get("precision")
    if settled is None:
        settled = ray.get(_find_precision.remote())
        replace(record, resolved={"precision": settled}).write(output)
    return replace(recipe, precision=settled)


@ray.remote(num_cpus=1)
def _find_precision() -> str:
    from pipeline.detector.device_selection import (  # noqa: PLC0415
        get_precision_name,
        select_device,
        select_dtype,
    )

    return get_precision_name(select_dtype("auto", select_device("auto")))
