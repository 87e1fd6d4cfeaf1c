"""The log of a training: one record per so many steps, as JSON lines and for TensorBoard.

Object stores cannot append, so both files are put whole with each state. On a resume the records after
that state are dropped: the log of an interrupted run has no gap and nothing twice.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline import storage

FOLDER = "logs"
LINES = "train.jsonl"
EVENTS = "events.out.tfevents.0.train"


@dataclass(frozen=True)
class Record:
    """What happened in the steps since the record before, over all workers."""

    step: int
    """Steps done."""
    epoch: float
    """Passes over the images."""
    loss: float
    """Per step: both parts, weighted."""
    loss_class: float
    loss_box: float
    """Before it is weighted by lambda."""
    learning_rate: float
    """The largest of the groups'."""
    gradient_norm: float
    """Mean over the steps, before clipping."""
    foreground: float
    """RoIs per image."""
    background: float
    images: int
    """Images that the steps took."""
    skipped: int
    """Images that could not be read since training began."""
    images_per_second: float
    data_wait: float
    """Share of the time that workers waited for images."""
    target_rms: float = 1.0
    """Root mean square of the foreground's normalised targets: near 1 where their statistics fit."""
    voc07_map50: float | None = None
    """Validation's VOC2007 11-point mean AP at IoU 0.5, where it was due at this step."""


class TrainingLog:
    """The records of an output up to now, written by one worker."""

    def __init__(self, output: str, step: int) -> None:
        self._folder = storage.join(output, FOLDER)
        self.records: list[Record] = []
        if step > 0:
            self.records = [record for record in read(output) if record.step <= step]

    def put(self) -> None:
        """Put both files."""
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in self.records)
        storage.put(storage.join(self._folder, LINES), lines.encode())
        storage.put(storage.join(self._folder, EVENTS), _events(self.records))


def read(output: str) -> list[Record]:
    """The records of a training; none where it has not written any."""
    try:
        lines = storage.read(storage.join(output, FOLDER, LINES)).decode().splitlines()
    except storage.MissingObject:
        return []
    return [Record(**json.loads(line)) for line in lines]


def _events(records: list[Record]) -> bytes:
    from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415  a second to import

    with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as folder:
        with SummaryWriter(folder) as writer:
            for record in records:
                for name, value in asdict(record).items():
                    if name != "step" and value is not None:
                        writer.add_scalar(name, value, record.step, walltime=float(record.step))
        (written,) = Path(folder).iterdir()
        return written.read_bytes()
