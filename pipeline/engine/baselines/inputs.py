"""What a training of R-CNN or SPPnet reads: opened and checked before Ray starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline import storage, uris
from pipeline.baselines.settings import BaselineSettings, System
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES, is_torchvision_name
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.preprocessing import PREPROCESSING_BY_NAME, Preprocessing
from pipeline.engine.train.training_inputs import log_excluded
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from pipeline.excluded_images import ExcludedImages, read_excluded_images
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.input_places import check_apart
from pipeline.training import training_files
from pipeline.training.annotated_dataset import check_objects, open_annotated_manifests
from pipeline.training.recipe import Recipe
from pipeline.training.specification import build_initial_network, choose_architecture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaselineInputs:
    """A training of R-CNN or SPPnet before it begins."""

    system: System
    output: str
    manifest: Manifest
    proposals: str | None
    """Stored proposals; None: they are computed first, into the output."""
    weights: str | None
    architecture: Architecture
    preprocessing: Preprocessing
    excluded: ExcludedImages | None = None
    """Images that no stage trains on."""


def open_baseline_inputs(
    system: System,
    manifest_uris: Sequence[str],
    proposals: Sequence[str] | ProposalSettings,
    output_uri: str,
    recipe: Recipe,
    *,
    weights: str | None,
    seed: int,
    classes: Sequence[str],
    exclude: str | None = None,
) -> BaselineInputs:
    """Open and check what `run_baseline_training` reads; nothing is written.

    Raises:
        PipelineError: a subclass that names the problem.
    """
    if len(manifest_uris) != 1 or (
        not isinstance(proposals, ProposalSettings) and len(proposals) > 1
    ):
        raise InvalidConfiguration(
            f"--system {system} trains on one --manifest with one --proposals, got "
            f"{len(manifest_uris)} and {0 if isinstance(proposals, ProposalSettings) else len(proposals)}"
        )
    output = uris.make_absolute(output_uri)
    if weights is not None and not is_torchvision_name(weights):
        weights = uris.make_absolute(weights)
    stored = None
    if not isinstance(proposals, ProposalSettings):
        stored = uris.make_absolute(proposals[0])
    check_apart(
        output,
        {
            "manifest": manifest_uris,
            "proposals": stored,
            "weights": None if is_torchvision_name(weights) else weights,
            "exclude": exclude,
        },
        training_files.WRITES,
    )
    (manifest,) = open_annotated_manifests(manifest_uris, classes)
    check_objects([manifest])
    excluded = None if exclude is None else read_excluded_images(exclude)
    if excluded is not None:
        log_excluded(excluded, [manifest])
    labels = manifest.classes or ()
    architecture, preprocessing = _choose_network(system, recipe, labels, weights, seed)
    storage.check_writable(output)
    return BaselineInputs(
        system, output, manifest, stored, weights, architecture, preprocessing, excluded
    )


def _choose_network(
    system: System, recipe: Recipe, classes: tuple[str, ...], weights: str | None, seed: int
) -> tuple[Architecture, Preprocessing]:
    if system == "fast-rcnn-svm":
        if weights is None:
            raise InvalidConfiguration(
                "--system fast-rcnn-svm needs --weights: the checkpoint folder of a trained Fast R-CNN"
            )
        record = read_checkpoint_record(weights)
        if record.system is not None or record.classes != classes:
            raise InvalidCheckpoint(
                f"{uris.redact_uri(weights)} is no Fast R-CNN of the manifest's classes "
                f"({', '.join(classes[:10])})"
            )
        return record.architecture, record.preprocessing
    if system == "sppnet" and weights is None:
        raise InvalidConfiguration(
            "--system sppnet needs --weights: its convolutions are not trained"
        )
    architecture = choose_architecture(recipe, classes, weights)
    if system == "rcnn" or recipe.fc_widths is None:
        checked = architecture
    else:
        checked = replace(architecture, fc_widths=None)
    _, loaded = build_initial_network(checked, weights, seed)  # wrong weights fail here
    for line in [] if weights is None else loaded.describe():
        log.info("%s", line)
    name = recipe.preprocessing
    if name is None and is_torchvision_name(weights):
        name = "torchvision"
    defaults = BACKBONES[recipe.network]
    preprocessing = PREPROCESSING_BY_NAME[name] if name is not None else defaults.preprocessing
    return architecture, replace(preprocessing, shift_rois_first=defaults.shift_rois_first)


def describe_training(
    inputs: BaselineInputs, settings: BaselineSettings, recipe: Recipe
) -> list[str]:
    """Lines for the log on what will be trained."""
    regions = settings.describe_system(inputs.system)
    lines = [f"{inputs.system} on {inputs.manifest.rows} images, {recipe.network}"]
    if regions.system == "rcnn":
        lines.append(
            f"windows of {regions.window_size} pixels with {regions.window_context} of context"
        )
    if regions.system == "sppnet":
        scales = ", ".join(map(str, regions.scales))
        lines.append(f"scales {scales}, pyramid {', '.join(map(str, regions.pyramid))}")
    return lines
