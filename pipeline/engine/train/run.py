"""Training on Ray Train: 1..N workers, any of which may die, and so may the driver.

States are in the output, not in Ray's checkpoints: a worker starts from the latest state whoever wrote it,
so a restart by Ray Train and a rerun of the command do the same.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from pipeline import storage, uris
from pipeline.engine import cluster
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.train.fit import run_ray_train
from pipeline.engine.train.training_inputs import TrainingInputs, open_training_inputs
from pipeline.engine.train.training_output import make_run_record, prepare_output, report_stop
from pipeline.engine.train.training_request import TrainingRequest
from pipeline.engine.train.training_summary import TrainingRun, TrainingSummary
from pipeline.engine.train.workers import Workers, choose_workers
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.resume import check_not_taken_over
from pipeline.runs.run_logs import RunLogs
from pipeline.runs.start_totals import StartTotals, read_start_totals
from pipeline.training import state, training_files
from pipeline.training.annotated_dataset import AnnotatedDataset, open_annotated_datasets
from pipeline.training.logs import read_log
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets

log = logging.getLogger(__name__)


def run_training(request: TrainingRequest) -> TrainingSummary:
    """Train a detector, or resume an interrupted training.

    Raises:
        PipelineError: a subclass that names the problem; wrong input is found before Ray starts.
    """
    cluster.check_ray_address()
    inputs = open_training_inputs(request)
    is_local = cluster.is_local()  # no node can join
    patience = 0.0 if is_local else request.execution.no_capacity_after
    with cluster.connect_to_cluster():
        if isinstance(request.proposals, ProposalSettings):
            datasets = _compute_proposals(inputs, request.proposals)
            survey = survey_datasets(datasets, request.recipe)
            inputs = replace(inputs, datasets=datasets, survey=survey)
        return _train(inputs, patience)


def _compute_proposals(
    inputs: TrainingInputs, settings: ProposalSettings
) -> list[AnnotatedDataset]:
    """Compute the proposals that are missing below the output, and join the manifests with them."""
    request, manifests = inputs.request, inputs.manifests
    options = RunOptions(
        overwrite=request.overwrite, no_capacity_after=request.execution.no_capacity_after
    )
    folder = uris.join(inputs.output, "proposals")
    proposal_uris = [folder]
    if len(manifests) > 1:
        proposal_uris = [uris.join(folder, str(number)) for number in range(len(manifests))]
    for manifest, uri in zip(manifests, proposal_uris, strict=True):
        run_proposals(manifest.uri, uri, settings, options)
    return open_annotated_datasets(manifests, proposal_uris, inputs.excluded)


def _train(inputs: TrainingInputs, patience: float) -> TrainingSummary:
    """Train with the workers that the cluster can hold within `patience` seconds."""
    overwrite, execution = inputs.request.overwrite, inputs.request.execution
    spec = inputs.build_spec()
    workers = choose_workers(
        spec.recipe,
        execution.workers,
        patience,
        gpu=execution.gpu,
        placement=execution.placement,
    )
    workers.log_schedule()
    spec = workers.divide(spec)
    record = make_run_record(spec)
    latest = prepare_output(spec.output, record, overwrite=overwrite)
    totals_uri = uris.join(spec.output, state.FOLDER, training_files.TOTALS_NAME)
    if latest is not None and latest.is_finished:
        _write_missing_summary(spec, workers, record.fingerprint, totals_uri)
        return TrainingSummary(spec.output, spec.steps, spec.survey.images, None, is_new=False)
    _log_start(spec, workers)
    totals = StartTotals(totals_uri)
    with (
        RunLogs(spec.output) as logs,
        report_stop(spec, record, overwrite=overwrite),
        totals,
    ):
        last = run_ray_train(
            spec,
            workers,
            inputs.validator,
            record,
            max_failures=execution.max_failures,
            no_capacity_after=execution.no_capacity_after,
            logs=logs,
        )
        check_not_taken_over(spec.output, record)
    training_files.remove_scratch_files(spec.output)
    run = _describe_run(
        spec,
        workers,
        record.fingerprint,
        totals.compute()["seconds"],
        whole_seconds=totals.elapsed if latest is None or latest.step == 0 else None,
    )
    summary = run.summarise(last)
    summary.write()
    return summary


def _write_missing_summary(
    spec: TrainingSpec, workers: Workers, fingerprint: str, totals_uri: str
) -> None:
    """Write the summary of a finished training whose driver was killed before it did."""
    if storage.exists(uris.join(spec.output, training_files.SUMMARY_NAME)):
        return
    training_files.remove_scratch_files(spec.output)
    seconds = read_start_totals(totals_uri).get("seconds", 0.0)
    run = _describe_run(spec, workers, fingerprint, seconds)
    records = read_log(spec.output)
    run.summarise(records[-1] if records else None).write()


def _log_start(spec: TrainingSpec, workers: Workers) -> None:
    survey = spec.survey
    log.info(
        "training on %d images with %d objects (proposals cover %.1f %%), %d steps, %s",
        survey.images,
        survey.objects,
        100 * survey.recall,
        spec.steps,
        workers,
    )


def _describe_run(
    spec: TrainingSpec,
    workers: Workers,
    fingerprint: str,
    seconds: float,
    *,
    whole_seconds: float | None = None,
) -> TrainingRun:
    capacity = cluster.get_capacity()
    return TrainingRun(
        spec.output,
        fingerprint,
        spec.steps,
        spec.survey.images,
        spec.images_per_step,
        seconds,
        whole_seconds=whole_seconds,
        cores=capacity.cpus,
        gpus=capacity.gpus,
        gpu_workers=workers.count if workers.gpu else 0,
        images_excluded=sum(dataset.count_excluded() for dataset in spec.datasets),
    )
