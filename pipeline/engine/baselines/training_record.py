"""The record of a training of R-CNN or SPPnet: what decides its result, so that only the same one resumes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import ray

from pipeline import storage, uris
from pipeline.baselines.settings import BaselineSettings
from pipeline.baselines.system_options import select_baseline_settings, select_recipe_settings
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.detector.checkpoint_record import WEIGHTS_NAME
from pipeline.engine import cluster
from pipeline.engine.baselines.inputs import BaselineInputs
from pipeline.engine.baselines.task_device import TaskDevice
from pipeline.run_record import RunRecord
from pipeline.runs.resume import check_not_taken_over, find_run_to_resume
from pipeline.training import training_files
from pipeline.training.annotated_dataset import AnnotatedDataset
from pipeline.training.recipe import Recipe

NO_TABLES = 0
"""Schema version of an output without tables of its own."""


def prepare_output(output: str, record: RunRecord, *, overwrite: bool) -> RunRecord:
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


def build_record(
    inputs: BaselineInputs,
    dataset: AnnotatedDataset,
    recipe: Recipe,
    settings: BaselineSettings,
    seed: int,
) -> RunRecord:
    """What decides the result of a training, and where its inputs are."""
    weights, excluded = inputs.weights, inputs.excluded
    stored = {"dataset": dataset.proposals.dataset, "proposals": dataset.proposals.provenance}
    return RunRecord(
        "train",
        {
            "system": inputs.system,
            "datasets": [stored],
            "annotations": _digest_annotations(dataset),
            "weights": _digest_weights(inputs),
            **({} if excluded is None else {"excluded": excluded.digest}),
            "recipe": select_recipe_settings(inputs.system, recipe),
            "baseline": select_baseline_settings(inputs.system, settings),
            "classes": list(inputs.architecture.classes),
            "seed": seed,
        },
        {
            "manifest": uris.redact_uri(inputs.manifest.uri),
            "proposals": uris.redact_uri(dataset.proposals.parts.uri),
            "weights": None if weights is None else uris.redact_uri(weights),
            **({} if excluded is None else {"exclude": uris.redact_uri(excluded.uri)}),
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


def settle_precision(
    recipe: Recipe, record: RunRecord, output: str, *, gpu: bool, no_capacity_after: float
) -> Recipe:
    """The recipe with a precision that is not auto: every start, worker and stage computes in the same one.

    A worker on a device of the training's kind says what it supports when the training begins; run.json
    keeps that.

    Raises:
        NoCapacity: for `no_capacity_after` seconds no node had such a device.
    """
    if recipe.precision != "auto":
        return recipe
    settled: Any = record.resolved.get("precision")
    if settled is None:
        device = TaskDevice(gpu)
        answer = device.build_task(_find_precision).remote("cuda" if gpu else "cpu")
        cluster.await_any([answer], no_capacity_after, gpus=device.gpus)
        settled = ray.get(answer)
        replace(record, resolved={"precision": settled}).write(output)
    return replace(recipe, precision=settled)


def _find_precision(device: str) -> str:
    from pipeline.detector.device_selection import (  # noqa: PLC0415
        get_precision_name,
        select_device,
        select_dtype,
    )

    return get_precision_name(select_dtype("auto", select_device(device)))
