"""The output of a training: who wrote it, and the state to resume from."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from pipeline import storage, uris
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.run_record import RunRecord
from pipeline.runs.resume import find_run_to_resume
from pipeline.training import state
from pipeline.training.annotated_dataset import AnnotatedDataset
from pipeline.training.specification import TrainingSpec
from pipeline.training.state import LatestState

log = logging.getLogger(__name__)

NO_TABLES = 0
"""Schema version of an output without tables: a new schema does not end a training."""


def prepare_output(spec: TrainingSpec, *, overwrite: bool) -> LatestState | None:
    """Make the output ready for this training; returns the state to resume from, if there is one.

    Unless this training resumes an earlier one, whatever a training wrote there is removed.

    Raises:
        MismatchedOutput: a training with other settings or of unknown origin wrote the output, and
            `overwrite` is not set.
    """
    record = make_run_record(spec)
    earlier = find_run_to_resume(spec.output, record, overwrite=overwrite, remains=state.REMAINS)
    if earlier is None:
        state.clear_training(spec.output)
        record.write(spec.output)
    latest = state.read_latest_state(spec.output)
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
