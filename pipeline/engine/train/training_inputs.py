"""What a training reads: opened and checked before Ray starts, whoever is to train."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.engine.train.training_request import TrainingRequest
from pipeline.engine.train.validation import Validator
from pipeline.excluded_images import ExcludedImages, read_excluded_images
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.input_places import check_apart
from pipeline.training import training_files
from pipeline.training.annotated_dataset import (
    AnnotatedDataset,
    check_objects,
    open_annotated_datasets,
    open_annotated_manifests,
)
from pipeline.training.specification import (
    TrainingSpec,
    build_initial_network,
    choose_architecture,
)
from pipeline.training.survey import Survey, survey_datasets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingInputs:
    """A training before it begins: its inputs, opened and checked."""

    request: TrainingRequest
    output: str
    """As an absolute URI."""
    manifests: Sequence[Manifest]
    weights: str | None
    """A name that torchvision knows, or an absolute URI."""
    validator: Validator | None
    datasets: Sequence[AnnotatedDataset] | None
    """The manifests joined with their proposals; None until these are computed."""
    survey: Survey | None
    """Of the datasets."""
    excluded: ExcludedImages | None = None
    """Images that are left out."""

    def build_spec(self) -> TrainingSpec:
        """The training of one worker, once the proposals exist."""
        assert self.datasets is not None, "proposals are computed first"
        assert self.survey is not None, "proposals are computed first"
        request, validator = self.request, self.validator
        return TrainingSpec(
            self.output,
            request.recipe,
            self.datasets,
            self.survey,
            weights=self.weights,
            seed=request.seed,
            checkpoint_every=request.execution.checkpoint_every,
            log_every=request.execution.log_every,
            validate_every=None if validator is None else request.validation.every,
            validation=None if validator is None else validator.digest,
        )


def open_training_inputs(request: TrainingRequest) -> TrainingInputs:
    """Open and check what a training reads; nothing is written.

    Raises:
        PipelineError: a subclass that names the problem.
    """
    output = uris.make_absolute(request.output)
    weights = _make_weights_absolute(request.weights)
    _check_inputs(request, output, weights)
    manifests = open_annotated_manifests(request.manifests, request.classes)
    check_objects(manifests)
    excluded = None if request.exclude is None else read_excluded_images(request.exclude)
    if excluded is not None:
        log_excluded(excluded, manifests)
    labels = manifests[0].classes or ()
    validator = request.validation.open_validator(labels)
    datasets = survey = None
    if not isinstance(request.proposals, ProposalSettings):
        datasets = open_annotated_datasets(manifests, request.proposals, excluded)
        survey = survey_datasets(datasets, request.recipe)
    _check_weights(choose_architecture(request.recipe, labels, weights), weights, request.seed)
    storage.check_writable(output)
    return TrainingInputs(
        request, output, manifests, weights, validator, datasets, survey, excluded
    )


def log_excluded(excluded: ExcludedImages, manifests: Sequence[Manifest]) -> None:
    """Log how many images a list leaves out; a list that names none of them is most likely another's."""
    count = sum(len(excluded.find_rows(manifest)) for manifest in manifests)
    images = sum(manifest.rows for manifest in manifests)
    log.log(
        logging.WARNING if len(excluded) and not count else logging.INFO,
        "--exclude %s names %d images and leaves out %d of %d",
        *(uris.redact_uri(excluded.uri), len(excluded), count, images),
    )


def _make_weights_absolute(weights: str | None) -> str | None:
    """The URI of a weights file; torchvision's names stay as they are."""
    if weights is None or is_torchvision_name(weights):
        return weights
    return uris.make_absolute(weights)


def _check_inputs(request: TrainingRequest, output: str, weights: str | None) -> None:
    """Reject an output that would overwrite an input.

    Raises:
        InvalidConfiguration: the output is an input, or an input is among what training writes.
    """
    is_file = weights is not None and not is_torchvision_name(weights)
    proposals = request.proposals
    check_apart(
        output,
        {
            "manifest": request.manifests,
            "proposals": None if isinstance(proposals, ProposalSettings) else proposals,
            "weights": weights if is_file else None,
            "validation.manifest": request.validation.manifest,
            "validation.proposals": request.validation.proposals,
            "exclude": request.exclude,
        },
        training_files.WRITES,
    )


def _check_weights(architecture: Architecture, weights: str | None, seed: int) -> None:
    """Build the network once before Ray starts, so that wrong weights fail here."""
    _, loaded = build_initial_network(architecture, weights, seed)
    for line in [] if weights is None else loaded.describe():
        log.info("%s", line)
