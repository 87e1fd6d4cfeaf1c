"""The output of a training: who wrote it, and the state to resume from."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

from pipeline import storage, uris
from pipeline.detector.backbones.catalog import is_torchvision_name
from pipeline.errors import PipelineError
from pipeline.run_record import RunRecord
from pipeline.runs.resume import check_not_taken_over, find_run_to_resume
from pipeline.runs.run_plan import remove_foreign_plan
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
            remove_foreign_plan(output, record.fingerprint)
        record.write(output)
    check_not_taken_over(output, record)
    latest = state.read_latest_state(output, record.fingerprint)
    if latest is not None and latest.step:
        log.info("an earlier run of this training came to step %d", latest.step)
    return latest


@contextlib.contextmanager
def report_stop(spec: TrainingSpec, record: RunRecord, *, overwrite: bool) -> Iterator[None]:
    """If a signal ends the block, log the step that the same command goes on from."""
    try:
        yield
    except KeyboardInterrupt:
        step = "an unknown step"  # the store does not say
        with contextlib.suppress(PipelineError):
            latest = state.read_latest_state(spec.output, record.fingerprint)
            step = f"step {0 if latest is None else latest.step}"
        log.warning(
            "stopped: %s of %d is kept in %s; %s goes on from it",
            *(step, spec.steps, uris.redact_uri(spec.output)),
            "the same command" + (" without --overwrite" if overwrite else ""),
        )
        raise


def make_run_record(spec: TrainingSpec) -> RunRecord:
    """The settings that decide the result, and where the inputs are."""
    datasets, weights = spec.datasets, spec.weights
    return RunRecord(
        "train",
        {
            "datasets": [_identify(dataset) for dataset in datasets],
            "annotations": spec.survey.annotations,
            "weights": _digest_weights(weights),
            **_digest_excluded(datasets[0]),
            **spec.as_settings(),
        },
        {
            "manifest": [uris.redact_uri(dataset.manifest.uri) for dataset in datasets],
            "proposals": [uris.redact_uri(dataset.proposals.parts.uri) for dataset in datasets],
            "weights": None if weights is None else uris.redact_uri(weights),
            **_locate_excluded(datasets[0]),
        },
        schema_version=NO_TABLES,
    )


def _identify(dataset: AnnotatedDataset) -> dict[str, Any]:
    """What identifies a dataset and its proposals, wherever they are stored."""
    return {"dataset": dataset.proposals.dataset, "proposals": dataset.proposals.provenance}


def _digest_excluded(dataset: AnnotatedDataset) -> dict[str, Any]:
    """What identifies the images that are left out; nothing without a list, as before there were lists."""
    return {} if dataset.excluded is None else {"excluded": dataset.excluded.digest}


def _locate_excluded(dataset: AnnotatedDataset) -> dict[str, Any]:
    return {} if dataset.excluded is None else {"exclude": uris.redact_uri(dataset.excluded.uri)}


def _digest_weights(weights: str | None) -> str | None:
    """A digest of the weights' bytes; torchvision's names stay as they are."""
    if weights is None or is_torchvision_name(weights):
        return weights
    return hashlib.sha256(storage.read(weights)).hexdigest()
