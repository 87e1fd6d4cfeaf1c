"""Compression of a checkpoint by truncated SVD, and what it gains and costs.

Fast R-CNN, section 3.1: fc6 and fc7 become two layers each, without a non-linearity between them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import storage, uris
from pipeline.detector.checkpoint_record import (
    CHECKPOINT_RECORD_NAME,
    WEIGHTS_NAME,
    CheckpointRecord,
    read_checkpoint_record,
)
from pipeline.engine.train.validation import Validation, Validator
from pipeline.errors import InvalidCheckpoint, MismatchedOutput
from pipeline.run_record import RunRecord
from pipeline.runs.input_places import CHECKPOINT_WRITES, check_apart
from pipeline.runs.output import SUMMARY_NAME
from pipeline.runs.resume import find_run_to_resume

if TYPE_CHECKING:
    from pipeline.detector.checkpoint import TrainedNetwork

log = logging.getLogger(__name__)

WRITES = (*CHECKPOINT_WRITES, SUMMARY_NAME)
"""The files of an output."""
ORIGIN = "compressed"
"""Field of a compressed checkpoint's record: the checkpoint and the ranks that it was made from."""


@dataclass(frozen=True)
class Figure:
    """One property of the network before and after compression."""

    name: str
    before: float
    after: float
    form: str
    """Format of both values, such as `{:.3f}`."""

    def format_cells(self) -> tuple[str, str, str]:
        """Before, after, and their ratio."""
        ratio = f"{self.after / self.before:.3f}" if self.before else "-"
        return self.form.format(self.before), self.form.format(self.after), ratio


@dataclass(frozen=True)
class CompressionSummary:
    """The result of a compression."""

    output: str
    shape: tuple[int, int]
    """Height and width of the image that was counted and timed."""
    rois: int
    """RoIs of this image."""
    figures: list[Figure]

    def write(self) -> None:
        """Put the figures into summary.json."""
        values = {
            "shape": list(self.shape),
            "rois": self.rois,
            "figures": {
                figure.name.strip(): {"before": figure.before, "after": figure.after}
                for figure in self.figures
            },
        }
        data = json.dumps(values, indent=2).encode() + b"\n"
        storage.put(uris.join(self.output, SUMMARY_NAME), data)


def run_compression(
    checkpoint_uri: str,
    output_uri: str,
    ranks: tuple[int, int],
    *,
    overwrite: bool,
    rois: int,
    repeats: int,
    validation: Validation,
) -> CompressionSummary:
    """Factorise fc6 and fc7, put the compressed checkpoint, and compare it with the original.

    Args:
        checkpoint_uri: checkpoint of a network with fc6 and fc7.
        output_uri: folder for the compressed checkpoint.
        ranks: singular values to keep of fc6 and fc7.
        overwrite: replace another checkpoint in the output.
        rois: RoIs of the image that is counted and timed.
        repeats: images to time with each network; 0 measures no time.
        validation: images to score both networks on, if it names any.

    Raises:
        InvalidCheckpoint: there is no checkpoint, or it is compressed already.
        InvalidConfiguration: a head without fc6 and fc7, a rank that the layer does not have, a manifest
            with other classes, or an output that is the checkpoint itself.
        MismatchedOutput: the output holds other files or another checkpoint.
    """
    record = read_checkpoint_record(checkpoint_uri)
    if record.architecture.fc_ranks is not None:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(checkpoint_uri)} is compressed already, to ranks "
            f"{record.architecture.fc_ranks}: compress the checkpoint that it was made from"
        )
    origin = {"checkpoint": record.digest, "fc6": ranks[0], "fc7": ranks[1]}
    check_apart(
        output_uri,
        {
            "checkpoint": checkpoint_uri,
            "manifest": validation.manifest,
            "proposals": validation.proposals,
        },
        WRITES,
    )
    _check_output(output_uri, origin, overwrite=overwrite)
    storage.check_writable(output_uri)
    validator = validation.open_validator(record.classes)
    networks = _compress(checkpoint_uri, output_uri, ranks, record, origin)
    from pipeline.detector.timing import compute_timed_shape  # noqa: PLC0415  imports torch

    shape = compute_timed_shape(networks[0])
    figures = _compare_costs(networks, shape, rois)
    if repeats:
        figures += _compare_times(networks, rois, repeats)
    if validator is not None:
        figures.append(_compare_scores(networks, validator))
    summary = CompressionSummary(output_uri, shape, rois, figures)
    summary.write()
    return summary


def _check_output(output_uri: str, origin: dict[str, Any], *, overwrite: bool) -> None:
    """Reject an output that holds anything but what this very compression wrote.

    Raises:
        MismatchedOutput: it does.
    """
    names = storage.list_names(output_uri)
    others = [name for name in names if name not in WRITES]
    if others:
        raise MismatchedOutput(
            f"{uris.redact_uri(output_uri)} holds other files than a compressed checkpoint "
            f"({', '.join(others[:5])}): choose another --output"
        )
    if WEIGHTS_NAME in names and CHECKPOINT_RECORD_NAME not in names and not overwrite:
        raise MismatchedOutput(
            f"{uris.redact_uri(output_uri)} holds {WEIGHTS_NAME} without its {CHECKPOINT_RECORD_NAME}: "
            "choose another --output or pass --overwrite, which replaces it"
        )
    if CHECKPOINT_RECORD_NAME in names and not overwrite:
        run = RunRecord("compress", origin)
        find_run_to_resume(output_uri, run, overwrite=False, read_record=_read_run)


def _read_run(output_uri: str) -> RunRecord:
    """The run that wrote a checkpoint; the checkpoint's record takes the place of run.json."""
    origin = read_checkpoint_record(output_uri).extra.get(ORIGIN)
    return RunRecord("train", {}) if origin is None else RunRecord("compress", origin)


def _compress(
    checkpoint_uri: str,
    output_uri: str,
    ranks: tuple[int, int],
    record: CheckpointRecord,
    origin: dict[str, Any],
) -> tuple[TrainedNetwork, TrainedNetwork]:
    """Put the compressed checkpoint; returns the networks before and after."""
    from pipeline.detector.checkpoint import (  # noqa: PLC0415  imports torch
        TrainedNetwork,
        load_checkpoint,
        save_checkpoint,
    )
    from pipeline.detector.svd import factorise_network  # noqa: PLC0415

    before = load_checkpoint(checkpoint_uri)
    small = factorise_network(before.network, *ranks)
    extra = {**record.extra, ORIGIN: origin}
    save_checkpoint(output_uri, small, before.preprocessing, extra=extra)
    return before, TrainedNetwork(small, before.preprocessing)


def _compare_costs(
    networks: Sequence[TrainedNetwork], shape: tuple[int, int], rois: int
) -> list[Figure]:
    from pipeline.detector.cost import count_cost  # noqa: PLC0415

    before, after = (count_cost(trained.network, shape) for trained in networks)
    over_image = before.count_multiply_adds(rois), after.count_multiply_adds(rois)
    return [
        Figure("parameters", before.parameters, after.parameters, "{:,}"),
        Figure("multiply-adds per RoI", before.per_roi, after.per_roi, "{:,}"),
        Figure("multiply-adds per image", *over_image, "{:,}"),
    ]


def _compare_times(networks: Sequence[TrainedNetwork], rois: int, repeats: int) -> list[Figure]:
    from pipeline.detector.timing import measure_seconds  # noqa: PLC0415

    log.info("timing %d images with each network", repeats)
    before, after = measure_seconds(networks, rois, repeats)
    return [
        Figure("seconds per image", before.image, after.image, "{:.3f}"),
        *(
            Figure(f"  {name}", before.layers[name], after.layers[name], "{:.3f}")
            for name in before.layers
        ),
    ]


def _compare_scores(networks: Sequence[TrainedNetwork], validator: Validator) -> Figure:
    scores = []
    for name, trained in zip(("before", "after"), networks, strict=True):
        log.info("scoring the network %s compression", name)
        scores.append(validator(trained.network, trained.preprocessing))
    return Figure("VOC 2007 mAP, IoU 0.5", scores[0], scores[1], "{:.4f}")
