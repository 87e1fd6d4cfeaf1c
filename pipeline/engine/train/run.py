"""Training on Ray Train: 1..N workers, any of which may die, and so may the driver.

States are in the output, not in Ray's checkpoints: a worker starts from the latest state whoever wrote it,
so a restart by Ray Train and a rerun of the command do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.engine import cluster
from pipeline.engine.propose.run import run_proposals
from pipeline.engine.train.fit import run_ray_train
from pipeline.engine.train.training_output import make_run_record, prepare_output
from pipeline.engine.train.validation import Validation, Validator
from pipeline.engine.train.workers import choose_workers
from pipeline.manifests import Manifest
from pipeline.option_ranges import check_fields
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.input_places import check_apart
from pipeline.runs.options import RunOptions
from pipeline.runs.resume import check_not_taken_over
from pipeline.training import training_files
from pipeline.training.annotated_dataset import (
    AnnotatedDataset,
    check_objects,
    open_annotated_datasets,
    open_annotated_manifests,
)
from pipeline.training.logs import TrainingRecord
from pipeline.training.recipe import Recipe
from pipeline.training.specification import (
    TrainingSpec,
    build_initial_network,
    choose_architecture,
)
from pipeline.training.survey import survey_datasets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a training."""

    output: str
    steps: int
    images: int
    """Images per epoch."""
    last: TrainingRecord | None
    """The last record of the log; None if the training was finished before."""
    seconds: float

    def format_lines(self) -> list[str]:
        """The lines to print at the end."""
        if self.last is None:
            outcome = f"training was finished already: {self.steps} steps, nothing to do"
        else:
            outcome = (
                f"{self.steps} steps over {self.images} images ({self.last.epoch:.2f} epochs), "
                f"loss {self.last.loss:.3f}, {self.last.skipped} images skipped, {self.seconds:.0f} s"
            )
        return [outcome, f"checkpoint: {uris.redact_uri(self.output)}"]


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

    def __post_init__(self) -> None:
        check_fields(self, "checkpoint_every", "log_every", at_least=1)
        check_fields(self, "max_failures", at_least=0)
        check_fields(self, "no_capacity_after", above=0)


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

    Raises:
        PipelineError: a subclass that names the problem; wrong input is found before Ray starts.
    """
    cluster.check_ray_address()
    output = uris.make_absolute(output_uri)
    weights = _make_weights_absolute(weights)
    _check_inputs(output, manifest_uris, proposals, weights, validation)
    manifests = open_annotated_manifests(manifest_uris, classes)
    check_objects(manifests)
    labels = manifests[0].classes or ()
    validator = validation.open_validator(labels)
    datasets = survey = None
    if not isinstance(proposals, ProposalSettings):
        datasets = open_annotated_datasets(manifests, proposals)
        survey = survey_datasets(datasets, recipe)
    _check_weights(choose_architecture(recipe, labels, weights), weights, seed)
    storage.check_writable(output)
    with cluster.connect_to_cluster():
        if isinstance(proposals, ProposalSettings):
            datasets = _compute_proposals(manifests, proposals, output, overwrite)
        assert datasets is not None
        spec = TrainingSpec(
            output,
            recipe,
            datasets,
            survey or survey_datasets(datasets, recipe),
            weights=weights,
            seed=seed,
            checkpoint_every=execution.checkpoint_every,
            log_every=execution.log_every,
            validate_every=None if validator is None else validation.every,
            validation=None if validator is None else validator.digest,
        )
        return _train(spec, execution, overwrite, validator)


def _make_weights_absolute(weights: str | None) -> str | None:
    """The URI of a weights file; torchvision's names stay as they are."""
    if weights is None or is_torchvision_name(weights):
        return weights
    return uris.make_absolute(weights)


def _check_inputs(
    output: str,
    manifest_uris: Sequence[str],
    proposals: Sequence[str] | ProposalSettings,
    weights: str | None,
    validation: Validation,
) -> None:
    """Reject an output that would overwrite an input.

    Raises:
        InvalidConfiguration: the output is an input, or an input is among what training writes.
    """
    is_file = weights is not None and not is_torchvision_name(weights)
    check_apart(
        output,
        {
            "manifest": manifest_uris,
            "proposals": None if isinstance(proposals, ProposalSettings) else proposals,
            "weights": weights if is_file else None,
            "validation.manifest": validation.manifest,
            "validation.proposals": validation.proposals,
        },
        training_files.WRITES,
    )


def _check_weights(architecture: Architecture, weights: str | None, seed: int) -> None:
    """Build the network once before Ray starts, so that wrong weights fail here."""
    _, loaded = build_initial_network(architecture, weights, seed)
    for line in [] if weights is None else loaded.describe():
        log.info("%s", line)


def _compute_proposals(
    manifests: Sequence[Manifest], settings: ProposalSettings, output: str, overwrite: bool
) -> list[AnnotatedDataset]:
    """Compute the proposals that are missing below the output, and join the manifests with them."""
    folder = uris.join(output, "proposals")
    proposal_uris = [folder]
    if len(manifests) > 1:
        proposal_uris = [uris.join(folder, str(number)) for number in range(len(manifests))]
    for manifest, uri in zip(manifests, proposal_uris, strict=True):
        run_proposals(manifest.uri, uri, settings, RunOptions(overwrite=overwrite))
    return open_annotated_datasets(manifests, proposal_uris)


def _train(
    spec: TrainingSpec, execution: Execution, overwrite: bool, validator: Validator | None
) -> TrainingSummary:
    started = monotonic()
    workers = choose_workers(
        spec.recipe, execution.workers, execution.no_capacity_after, gpu=execution.gpu
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
    last = run_ray_train(
        spec,
        workers,
        validator,
        record,
        max_failures=execution.max_failures,
        no_capacity_after=execution.no_capacity_after,
    )
    check_not_taken_over(spec.output, record)
    training_files.remove_scratch_files(spec.output)
    return TrainingSummary(spec.output, spec.steps, survey.images, last, monotonic() - started)
