"""The output of a training: who wrote it, and the state to resume from."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from pipeline import storage, uris
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.run_record import RunRecord
from pipeline.runs.resume import check_not_taken_over, find_run_to_resume
from pipeline.training import state
from pipeline.training.annotated_dataset import AnnotatedDataset
from pipeline.training.specification import TrainingSpec
from pipeline.training.state import LatestState
from pipeline.training.training_files import clear_training, list_training_files

log = logging.getLogger(__name__)

NO_TABLES = 0
"""Schema version of an output without tables: a new schema does not end a training."""


def prepare_output(output: str, record: RunRecord, *, overwrite: bool) -> LatestState | None:
    """Make the output ready for this training; returns the state to resume from, if there is one.

    Nothing is removed unless `overwrite` is set, and then only objects with names that training writes.

    Raises:
        MismatchedOutput: a training with other settings or of unknown origin wrote the output, or it holds
            files with names that training writes, and `overwrite` is not set.
        TakenOver: another training started here at the same time.
    """
    earlier = find_run_to_resume(
        output, record, overwrite=overwrite, list_remains=lambda: list_training_files(output)
    )
    if earlier is None:
        if overwrite:
            clear_training(output)
        record.write(output)
    check_not_taken_over(output, record)
    latest = state.read_latest_state(output, record.fingerprint)
    if latest is not None and latest.step:
        log.info("an earlier run of this training came to step %d", latest.step)
    return latest


def make_run_record(spec: TrainingSpec) -> RunRecord:
    """The settings that decide the result, and where the inputs are."""
    datasets, weights = spec.datasets, spec.weights
    return RunRecord(
        "train",
        {
            "datasets": [_identify(dataset) for dataset in datasets],
            "annotations": spec.survey.annotations,
            "weights": _digest_weights(weights),
            **spec.as_settings(),
        },
        {
            "manifest": [uris.redact_uri(dataset.manifest.uri) for dataset in datasets],
            "proposals": [uris.redact_uri(dataset.proposals.parts.uri) for dataset in datasets],
            "weights": None if weights is None else uris.redact_uri(weights),
        },
        schema_version=NO_TABLES,
    )


def _identify(dataset: AnnotatedDataset) -> dict[str, Any]:
    """What identifies a dataset and its proposals, wherever they are stored."""
    return {"dataset": dataset.proposals.dataset, "proposals": dataset.proposals.provenance}


def _digest_weights(weights: str | None) -> str | None:
    """A digest of the weights' bytes; torchvision's names stay as they are."""
    if weights is None or is_torchvision_name(weights):
        return weights
    return hashlib.sha256(storage.read(weights)).hexdigest()
