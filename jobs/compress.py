"""Factorise the fully connected layers of a checkpoint by truncated SVD, for quicker detection.

python jobs/compress.py --checkpoint out/checkpoint --output out/compressed --fc6 1024 --fc7 256

Fast R-CNN, section 3.1: fc6 and fc7 become two layers each, without a non-linearity between them. The
output is a checkpoint like any other. Parameters, multiply-adds and the time of an image are printed
before and after; with --manifest and --proposals the mean average precision of both too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from jobs import entry
from pipeline import storage
from pipeline.detector.checkpoint_record import RECORD_NAME, WEIGHTS_NAME, CheckpointRecord, peek
from pipeline.engine.train.validation import Validation, Validator
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration, MismatchedOutput

if TYPE_CHECKING:
    from pipeline.detector.checkpoint import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Compress(entry.JobOptions):
    """Options of the compress job."""

    checkpoint: str
    """Checkpoint of a network with fc6 and fc7: the output folder of jobs/train.py; any fsspec URI."""
    output: str
    """Folder for the compressed checkpoint; any fsspec URI."""
    fc6: int = 1024
    """Singular values that are kept of fc6 (section 4.4)."""
    fc7: int = 256
    """Singular values that are kept of fc7."""
    overwrite: bool = False
    """Replace another checkpoint that lies in the output."""
    rois: int = 2000
    """RoIs of the image whose multiply-adds and time are told."""
    repeats: int = 5
    """Images that are timed with each network; the median is told. 0 measures no time."""
    manifest: str | None = None
    """Annotated images to score both networks on; needs --proposals."""
    proposals: str | None = None
    """Their stored proposals (jobs/propose.py)."""
    images: int = 5000
    """Score on at most the first so many images."""

    def __post_init__(self) -> None:
        for name, least in (("fc6", 1), ("fc7", 1), ("rois", 1), ("repeats", 0), ("images", 1)):
            if getattr(self, name) < least:
                raise InvalidConfiguration(
                    f"--{name} is {getattr(self, name)}, expected at least {least}"
                )
        if (self.manifest is None) != (self.proposals is None):
            raise InvalidConfiguration(
                "--manifest and --proposals are given together or not at all"
            )


def main(options: Compress) -> None:
    """Factorise, write, and tell what it gains and costs.

    Raises:
        InvalidCheckpoint: no checkpoint, or one that is compressed already.
        InvalidConfiguration: a head without fc6 and fc7, a rank that the layer does not have, a manifest
            of other classes.
        MismatchedOutput: something else lies in the output.
    """
    record = peek(options.checkpoint)
    if record.architecture.fc_ranks is not None:
        raise InvalidCheckpoint(
            f"{storage.shown(options.checkpoint)} is compressed already, to ranks "
            f"{record.architecture.fc_ranks}: compress the checkpoint that it was made from"
        )
    made_from = {"checkpoint": record.digest, "fc6": options.fc6, "fc7": options.fc7}
    _check_output(options, made_from)
    storage.check_writable(options.output)
    validator = Validation(options.manifest, options.proposals, images=options.images).validator(
        record.classes
    )
    before, after = _compressed(options, record, made_from)
    console = Console()
    console.print(_table(before, after, options, validator))
    print(f"checkpoint: {storage.shown(options.output)}")


def _check_output(options: Compress, made_from: dict[str, Any]) -> None:
    """Refuse an output that holds anything but what this very command wrote.

    Raises:
        MismatchedOutput: it does.
    """
    shown = storage.shown(options.output)
    if storage.absolute(options.output) == storage.absolute(options.checkpoint):
        raise MismatchedOutput(f"{shown} is the checkpoint itself: choose another --output")
    found = storage.names(options.output)
    others = [name for name in found if name not in (RECORD_NAME, WEIGHTS_NAME)]
    if others:
        raise MismatchedOutput(
            f"{shown} holds something else than a compressed checkpoint ({', '.join(others[:5])}): "
            "choose another --output"
        )
    if RECORD_NAME not in found or options.overwrite:
        return
    if peek(options.output).extra.get("compressed") != made_from:
        raise MismatchedOutput(
            f"{shown} holds another checkpoint: choose another --output or pass --overwrite"
        )


def _compressed(
    options: Compress, record: CheckpointRecord, made_from: dict[str, Any]
) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoint as it was and as it was written."""
    from pipeline.detector import checkpoint  # noqa: PLC0415  imports torch
    from pipeline.detector.svd import compressed  # noqa: PLC0415

    before = checkpoint.load(options.checkpoint)
    small = compressed(before.model, options.fc6, options.fc7)
    extra = {**record.extra, "compressed": made_from}
    checkpoint.save(options.output, small, before.preprocessing, extra=extra)
    return before, checkpoint.Checkpoint(small, before.preprocessing)


def _table(
    before: Checkpoint, after: Checkpoint, options: Compress, validator: Validator | None
) -> Table:
    from pipeline.detector.cost import cost, measured, shape_measured  # noqa: PLC0415

    numbers = [Column(name, justify="right") for name in ("before", "after", "after / before")]
    shape = shape_measured(before)
    title = f"an image of {shape[0]} x {shape[1]} pixels, {options.rois} RoIs"
    table = Table("", *numbers, title=title)

    def row(name: str, values: list[float], form: str) -> None:
        ratio = f"{values[1] / values[0]:.3f}" if values[0] else "-"
        table.add_row(name, *(form.format(value) for value in values), ratio)

    costs = [cost(one.model, shape) for one in (before, after)]
    row("parameters", [one.parameters for one in costs], "{:,}")
    row("multiply-adds per RoI", [one.per_roi for one in costs], "{:,}")
    row("multiply-adds per image", [one.of_image(options.rois) for one in costs], "{:,}")
    if options.repeats:
        log.info("timing %d images with each network", options.repeats)
        times = measured((before, after), options.rois, options.repeats)
        row("seconds per image", [one.image for one in times], "{:.3f}")
        row("  for its RoIs", [one.rois for one in times], "{:.3f}")
    if validator is not None:
        scores = []
        for name, one in (("before", before), ("after", after)):
            log.info("scoring the network %s compression", name)
            scores.append(validator(one.model, one.preprocessing))
        row("VOC 2007 mAP, IoU 0.5", scores, "{:.4f}")
    return table


if __name__ == "__main__":
    entry.run(Compress, main, __doc__)
