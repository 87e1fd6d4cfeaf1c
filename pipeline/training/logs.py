"""The log of a training: a record every few steps, as JSON lines and for TensorBoard.

Object stores cannot append, so both files are put whole with each state. A resumed run drops the records
after its state, so the log of an interrupted training has neither gaps nor repeated steps.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import storage, uris
from pipeline.detector.loss_names import TOTAL
from pipeline.errors import InvalidCheckpoint, MissingObject
from pipeline.json_reader import InvalidJson, is_integer, parse_fields

FOLDER = "logs"
LINES = "train.jsonl"
EVENTS = "events.out.tfevents.0.train"
LOSS = "loss"
"""Field and tag of the total loss; those of a part are `loss_<part>`."""


@dataclass(frozen=True)
class TrainingRecord:
    """What happened in the steps since the previous record, over all workers."""

    step: int
    """Steps done."""
    epoch: float
    """Passes over the images."""
    losses: Mapping[str, float]
    """Mean per step by name: `total`, and the parts before weighting."""
    learning_rate: float
    """The largest of all parameter groups."""
    gradient_norm: float
    """Mean over the steps, before clipping."""
    foreground: float
    """RoIs per image."""
    background: float
    images: int
    """Images that the steps used."""
    skipped: int
    """Images that could not be read since training began."""
    images_per_second: float
    data_wait: float
    """Share of the time that workers waited for images."""
    target_rms: float = 1.0
    """Root mean square of the foreground's normalised targets: near 1 if their statistics fit."""
    cpu_seconds: float = 0.0
    """CPU seconds of all workers, without states and the start."""
    bytes_read: int = 0
    """Bytes of the images that the steps used."""
    seconds: float = 0.0
    """Seconds of the steps, as the mean over workers."""
    voc07_map50: float | None = None
    """Validation's VOC2007 11-point mean AP at IoU 0.5, if validation was due at this step."""

    @property
    def loss(self) -> float:
        """The loss that training minimises."""
        return self.losses[TOTAL]

    @property
    def loss_parts(self) -> dict[str, float]:
        """The parts of the loss by name, before weighting."""
        return {name: loss for name, loss in self.losses.items() if name != TOTAL}

    def as_json(self) -> dict[str, Any]:
        """The record as JSON values, one field per loss: `loss`, `loss_class`, `loss_box`."""
        values: dict[str, Any] = {}
        for field in fields(self):
            if field.name == "losses":
                values[LOSS] = self.loss
                values |= {f"{LOSS}_{name}": loss for name, loss in self.loss_parts.items()}
            else:
                values[field.name] = getattr(self, field.name)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TrainingRecord:
        """The record that `as_json` wrote."""
        losses, others = {}, {}
        for name, value in values.items():
            if name == LOSS:
                losses[TOTAL] = value
            elif name.startswith(f"{LOSS}_"):
                losses[name.removeprefix(f"{LOSS}_")] = value
            else:
                others[name] = value
        return cls(losses=losses, **others)


class TrainingLog:
    """The records of an output so far, written by one worker."""

    def __init__(self, output: str, step: int) -> None:
        """Open the log of a training that continues after `step` steps."""
        self._folder = uris.join(output, FOLDER)
        self.records: list[TrainingRecord] = []
        if step > 0:
            self.records = [record for record in read_log(output) if record.step <= step]

    def write(self) -> None:
        """Put both files."""
        lines = "".join(json.dumps(record.as_json()) + "\n" for record in self.records)
        storage.put(uris.join(self._folder, LINES), lines.encode())
        storage.put(uris.join(self._folder, EVENTS), _encode_events(self.records))


def read_log(output: str) -> list[TrainingRecord]:
    """The records of a training; empty if it has not written any.

    Raises:
        InvalidCheckpoint: a line is damaged.
    """
    uri = uris.join(output, FOLDER, LINES)
    try:
        lines = storage.read(uri).decode(errors="replace").splitlines()
    except MissingObject:
        return []
    return [_parse_record(uri, line) for line in lines]


def _parse_record(uri: str, line: str) -> TrainingRecord:
    try:
        record = TrainingRecord.from_json(parse_fields(line).values)
    except (InvalidJson, TypeError) as error:  # fields that a record does not have, or lacks
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged ({error}); remove it to go on without the earlier log"
        ) from error
    if not is_integer(record.step, 0) or TOTAL not in record.losses:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(uri)} is damaged: a line has no step or no loss; "
            "remove it to go on without the earlier log"
        )
    return record


def _encode_events(records: list[TrainingRecord]) -> bytes:
    from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  a second to import

    with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as folder:
        with SummaryWriter(folder) as writer:
            for record in records:
                for name, value in record.as_json().items():
                    if name != "step" and value is not None:
                        writer.add_scalar(name, value, record.step, walltime=float(record.step))
        (events,) = Path(folder).iterdir()
        return events.read_bytes()
