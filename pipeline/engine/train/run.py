"""Training on Ray Train: 1..N workers, any of which may die, and so may the driver.

States are in the output, not in Ray's checkpoints: a worker starts from the latest state whoever wrote it,
so a restart by Ray Train and a rerun of the command do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from pipeline import uris
from pipeline.engine import cluster
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.train.fit import run_ray_train
from pipeline.engine.train.training_inputs import TrainingInputs, open_training_inputs
from pipeline.engine.train.training_output import make_run_record, prepare_output, report_stop
from pipeline.engine.train.training_summary import TrainingRun, TrainingSummary
from pipeline.engine.train.validation import Validation, Validator
from pipeline.engine.train.workers import choose_workers
from pipeline.option_ranges import check_fields
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.placement import Placement, parse_placement
from pipeline.runs.resume import check_not_taken_over
from pipeline.runs.run_logs import RunLogs
from pipeline.training import training_files
from pipeline.training.annotated_dataset import AnnotatedDataset, open_annotated_datasets
from pipeline.training.recipe import Recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """How a training runs. `workers` changes the result only if it changes the images of a step."""

    workers: int | None = None
    """Largest number of workers. They divide a step's images, so at most one per image works; with
    --scale-rate-with-workers each takes a whole step's images. None: one per GPU or, without GPUs, one per
    core, always dividing; cores left over become threads."""
    gpu: bool | None = None
    """Whether every worker has a GPU. None: if the cluster has one; True waits for nodes with GPUs."""
    checkpoint_every: int = 250
    """Steps between resumable states."""
    log_every: int = 20
    """Steps between records of the log."""
    max_failures: int = 3
    """Number of worker deaths that the run survives; a rerun resumes from the latest state."""
    no_capacity_after: float = 300.0
    """Seconds to wait for nodes that can hold the workers."""
    resources: str | None = None
    """JSON with amounts of custom resources that a node must have for a worker: {"fast": 0.01}."""
    label_selector: str | None = None
    """JSON with conditions on the labels of nodes that hold workers, such as {"market": "!spot"}. Proposals
    that the job computes first use all nodes."""

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint_every", "log_every", at_least=1)
        check_fields(self, "max_failures", at_least=0)
        check_fields(self, "no_capacity_after", above=0)
        parse_placement(self.resources, self.label_selector)  # rejects wrong values

    @property
    def placement(self) -> Placement:
        """Which nodes may hold a worker."""
        return parse_placement(self.resources, self.label_selector)


def run_training(
    manifest_uris: Sequence[str],
    proposals: Sequence[str] | ProposalSettings,
    output_uri: str,
    recipe: Recipe,
    *,
    weights: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    execution: Execution = Execution(),
    validation: Validation = Validation(),
    classes: Sequence[str] = (),
    exclude: str | None = None,
) -> TrainingSummary:
    """Train a detector, or resume an interrupted training.

    Args:
        manifest_uris: annotated datasets with the same classes.
        proposals: stored ones, a URI per manifest in the same order, or how to compute them into the output.
        output_uri: folder for the final network, states, logs and run.json.
        recipe: how to train.
        weights: pretrained weights, as `load_pretrained` takes them.
        seed: of initialisation, order, flips and RoIs.
        overwrite: remove an earlier training from the output and start again.
        execution: workers, states, time limits.
        validation: held-out images; the network with the best score is kept in OUTPUT/best.
        classes: the labels in the order of their numbers, for manifests that do not list them.
        exclude: a list of images to leave out (`excluded_images`).

    Raises:
        PipelineError: a subclass that names the problem; wrong input is found before Ray starts.
    """
    cluster.check_ray_address()
    inputs = open_training_inputs(
        manifest_uris,
        proposals,
        output_uri,
        recipe,
        weights=weights,
        seed=seed,
        validation=validation,
        classes=classes,
        exclude=exclude,
    )
    is_local = cluster.is_local()  # no node can join
    with cluster.connect_to_cluster():
        if isinstance(proposals, ProposalSettings):
            options = RunOptions(overwrite=overwrite, no_capacity_after=execution.no_capacity_after)
            datasets = _compute_proposals(inputs, proposals, options)
            inputs = replace(inputs, datasets=datasets, survey=survey_datasets(datasets, recipe))
        spec = inputs.build_spec(
            recipe,
            seed=seed,
            checkpoint_every=execution.checkpoint_every,
            log_every=execution.log_every,
            validate_every=validation.every,
        )
        patience = 0.0 if is_local else execution.no_capacity_after
        return _train(spec, execution, overwrite, inputs.validator, patience)


def _compute_proposals(
    inputs: TrainingInputs, settings: ProposalSettings, options: RunOptions
) -> list[AnnotatedDataset]:
    """Compute the proposals that are missing below the output, and join the manifests with them."""
    manifests = inputs.manifests
    folder = uris.join(inputs.output, "proposals")
    proposal_uris = [folder]
    if len(manifests) > 1:
        proposal_uris = [uris.join(folder, str(number)) for number in range(len(manifests))]
    for manifest, uri in zip(manifests, proposal_uris, strict=True):
        run_proposals(manifest.uri, uri, settings, options)
    return open_annotated_datasets(manifests, proposal_uris, inputs.excluded)


def _train(
    spec: TrainingSpec,
    execution: Execution,
    overwrite: bool,
    validator: Validator | None,
    patience: float,
) -> TrainingSummary:
    started = monotonic()
    workers = choose_workers(
        spec.recipe,
        execution.workers,
        patience,
        gpu=execution.gpu,
        placement=execution.placement,
    )
    workers.log_schedule()
    spec = replace(
        spec, recipe=workers.recipe, workers=workers.count, rate_factor=workers.rate_factor
    )
    survey = spec.survey
    record = make_run_record(spec)
    latest = prepare_output(spec.output, record, overwrite=overwrite)
    if latest is not None and latest.is_finished:
        return TrainingSummary(spec.output, spec.steps, survey.images, None, 0.0)
    log.info(
        "training on %d images with %d objects (proposals cover %.1f %%), %d steps, %s",
        survey.images,
        survey.objects,
        100 * survey.recall,
        spec.steps,
        workers,
    )
    with RunLogs(spec.output) as logs, report_stop(spec, record, overwrite=overwrite):
        last = run_ray_train(
            spec,
            workers,
            validator,
            record,
            max_failures=execution.max_failures,
            no_capacity_after=execution.no_capacity_after,
            logs=logs,
        )
        check_not_taken_over(spec.output, record)
    training_files.remove_scratch_files(spec.output)
    capacity = cluster.get_capacity()
    summary = TrainingRun(
        spec.output,
        record.fingerprint,
        spec.steps,
        survey.images,
        spec.images_per_step,
        monotonic() - started,
        is_whole=latest is None or latest.step == 0,
        cores=capacity.cpus,
        gpus=capacity.gpus,
        gpu_workers=workers.count if workers.gpu else 0,
        images_excluded=sum(dataset.count_excluded() for dataset in spec.datasets),
    ).summarise(last)
    summary.write()
    return summary
