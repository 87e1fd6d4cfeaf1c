"""Training on Ray Train: 1..N workers that survive the death of any of them, and of the driver.

States lie in the output, not in Ray's checkpoints: a worker starts from the latest one whoever wrote it,
so a restart by Ray Train and a rerun of the command are the same thing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from pipeline import run_record, storage
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.engine import cluster
from pipeline.engine.propose import run as proposal_run
from pipeline.engine.train.fit import fit
from pipeline.engine.train.validation import Validation, Validator
from pipeline.engine.train.workers import placed
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.training.logs import Record
from pipeline.training.recipe import Recipe
from pipeline.training.run import TrainingRun, architecture, initial_network
from pipeline.training.source import Source, check_objects, open_manifests, open_sources
from pipeline.training.survey import survey

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSummary:
    """What a training came to."""

    output: str
    steps: int
    images: int
    """Images per epoch."""
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
    """How a training is carried out. `workers` changes the result where it changes a step's images."""

    workers: int | None = None
    """Each takes the recipe's images per step. None: one per GPU, or the step's images divided
    among as many one-thread workers as there are cores."""
    gpu: bool | None = None
    """Whether each worker has a GPU. None: where the cluster has one; True waits for nodes with GPUs."""
    checkpoint_every: int = 250
    """Steps between resumable states."""
    log_every: int = 20
    """Steps between records of the log."""
    max_failures: int = 3
    """Worker deaths after which the run gives up; a rerun goes on from the latest state."""
    no_capacity_after: float = 300.0
    """Seconds to wait for nodes that can hold the workers."""

    def __post_init__(self) -> None:
        for name, least in (("checkpoint_every", 1), ("log_every", 1), ("max_failures", 0)):
            if getattr(self, name) < least:
                option = name.replace("_", "-")
                raise InvalidConfiguration(
                    f"--{option} is {getattr(self, name)}, expected at least {least}"
                )
        if self.no_capacity_after <= 0:
            raise InvalidConfiguration(
                f"--no-capacity-after is {self.no_capacity_after}, expected above 0"
            )


def run(
    manifest_uris: Sequence[str],
    proposals: Sequence[str] | ProposalSettings,
    output_uri: str,
    recipe: Recipe,
    *,
    weights: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    execution: Execution = Execution(),
    validation: Validation | None = None,
) -> TrainingSummary:
    """Train a detector, or go on with a training that was interrupted.

    Args:
        manifest_uris: annotated datasets of the same classes.
        proposals: stored proposals, one URI per manifest in the same order, or how to compute them
            first, into the output.
        output_uri: folder for the final model; states, logs and run.json lie in it too.
        recipe: how to train.
        weights: pretrained weights, as `load_pretrained` takes them.
        seed: of initialisation, order, flips and RoIs.
        overwrite: remove what an earlier training wrote there and start anew.
        execution: workers, states, patience.
        validation: held-out images; the network that did best on them is kept in OUTPUT/best.

    Raises:
        PipelineError: a subclass that says what is wrong; wrong input is found before Ray starts.
    """
    output = storage.absolute(output_uri)
    weights = None if weights is None else _located(weights)
    manifests = open_manifests(manifest_uris)
    check_objects(manifests)
    validation = validation or Validation()
    validator = validation.validator(manifests[0].classes or ())
    sources = found = None
    if not isinstance(proposals, ProposalSettings):
        sources = open_sources(manifests, proposals)
        found = survey(sources, recipe)
    make_up = architecture(recipe, manifests[0].classes or (), weights)
    _, loaded = initial_network(make_up, weights, seed)
    storage.check_writable(output)
    with cluster.connected():
        if isinstance(proposals, ProposalSettings):
            sources = open_sources(manifests, _computed(manifests, proposals, output, overwrite))
        assert sources is not None
        for line in [] if weights is None else loaded.lines():
            log.info("%s", line)
        told = TrainingRun(
            output,
            recipe,
            sources,
            found or survey(sources, recipe),
            weights=weights,
            seed=seed,
            checkpoint_every=execution.checkpoint_every,
            log_every=execution.log_every,
            validate_every=None if validator is None else validation.every,
        )
        return _trained(told, execution, overwrite, validator)


def _computed(
    manifests: Sequence[Manifest], settings: ProposalSettings, output: str, overwrite: bool
) -> list[str]:
    """Compute proposals below the output, or what is left of them, and return where they lie."""
    folder = storage.join(output, "proposals")
    places = [folder]
    if len(manifests) > 1:
        places = [storage.join(folder, str(number)) for number in range(len(manifests))]
    for manifest, place in zip(manifests, places, strict=True):
        proposal_run.run(manifest.uri, place, settings, RunOptions(overwrite=overwrite))
    return places


def _trained(
    told: TrainingRun, execution: Execution, overwrite: bool, validator: Validator | None
) -> TrainingSummary:
    started = monotonic()
    workers = placed(told.recipe, execution.workers, execution.no_capacity_after, gpu=execution.gpu)
    factor = 1
    if told.recipe.scale_rate_with_workers:
        factor = workers.recipe.images_per_step * workers.count // told.recipe.images_per_step
    told = replace(told, recipe=workers.recipe, workers=workers.count, rate_factor=factor)
    found = told.survey
    if _opened(told, overwrite):
        return TrainingSummary(told.output, told.steps, found.images, None, 0.0)
    log.info(
        "training on %d images with %d objects (proposals cover %.1f %%), %d steps, %s",
        found.images,
        found.objects,
        100 * found.recall,
        told.steps,
        workers,
    )
    last = fit(
        told,
        workers,
        validator,
        max_failures=execution.max_failures,
        no_capacity_after=execution.no_capacity_after,
    )
    return TrainingSummary(told.output, told.steps, found.images, last, monotonic() - started)


def _described(source: Source) -> dict[str, Any]:
    """What identifies a dataset and its proposals, wherever they lie."""
    return {"dataset": source.proposals.dataset, "proposals": source.proposals.provenance}


def _located(weights: str) -> str:
    """The weights' absolute URI; torchvision's names stay as they are."""
    return weights if is_torchvision_name(weights) else storage.absolute(weights)


def _digest(weights: str | None) -> str | None:
    if weights is None or is_torchvision_name(weights):
        return weights
    return hashlib.sha256(storage.read(weights)).hexdigest()


def _record(told: TrainingRun) -> RunRecord:
    sources, weights = told.sources, told.weights
    return RunRecord(
        "train",
        {
            "datasets": [_described(source) for source in sources],
            "weights": _digest(weights),
            **told.settings(),
        },
        {
            "manifest": [storage.shown(source.manifest.uri) for source in sources],
            "proposals": [storage.shown(source.proposals.parts.uri) for source in sources],
            "weights": None if weights is None else storage.shown(weights),
        },
    )


def _opened(told: TrainingRun, overwrite: bool) -> bool:
    """Make the output ready for this training; tells whether it is finished already.

    Raises:
        MismatchedOutput: another run or something unknown wrote there, and `overwrite` is not set.
    """
    from pipeline.training import state  # noqa: PLC0415  imports torch

    record, output = _record(told), told.output
    before = run_record.read_record(output)
    found = [] if before is None else run_record.differences(before, record)
    if found and not overwrite:
        raise MismatchedOutput(
            f"{storage.shown(output)} was written by a run with other settings ({'; '.join(found)}): "
            "choose another --output or pass --overwrite"
        )
    if before is None and not overwrite and state.left(output):
        raise MismatchedOutput(
            f"{storage.shown(output)} holds a checkpoint of unknown origin, since {run_record.NAME} is "
            "missing: choose another --output or pass --overwrite"
        )
    if before is None or overwrite:
        state.clear(output)
        record.write(output)
    latest = state.latest(output)
    if latest is not None and latest.step:
        log.info("an earlier run of this training came to step %d", latest.step)
    return latest is not None and latest.finished
