"""The stages of a training, each of which runs once: its record in OUTPUT/stages says that it is finished."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from pipeline import storage, uris
from pipeline.errors import InvalidCheckpoint, MissingObject
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.training.training_files import STAGES

STAGES_BY_SYSTEM = {
    "rcnn": ("fine-tune", "features", "svm", "boxes"),
    "sppnet": ("maps", "fine-tune", "features", "svm", "boxes"),
    "fast-rcnn-svm": ("features", "svm", "boxes"),
}
"""The stages of each system, in their order."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """A finished stage."""

    name: str
    seconds: float
    """Of all starts that worked on it."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What it counted, as JSON values."""


class Stages:
    """The stages of one output, in the order in which they run."""

    def __init__(self, output: str) -> None:
        self._folder = uris.join(output, STAGES)
        self.records: list[StageRecord] = []
        """The finished stages so far."""
        self.ran = False
        """Whether this start ran any of them."""

    def run(self, name: str, work: Callable[[], Mapping[str, Any]]) -> StageRecord:
        """Run a stage unless it is finished; `work` leaves its results in the output before it returns.

        The figure `seconds_before` of what `work` returns, of earlier starts, is added to its seconds.

        Raises:
            InvalidCheckpoint: the record of the stage is damaged.
        """
        stored = self.read(name)
        if stored is None:
            log.info("stage %s begins", name)
            began = monotonic()
            figures = dict(work())
            seconds = monotonic() - began + float(figures.pop("seconds_before", 0.0))
            stored = StageRecord(name, round(seconds, 3), figures)
            self._write(stored)
            self.ran = True
            log.info("stage %s took %.1f s", name, seconds)
        self.records.append(stored)
        return stored

    def read(self, name: str) -> StageRecord | None:
        """The record of a finished stage, or None.

        Raises:
            InvalidCheckpoint: it is damaged.
        """
        uri = uris.join(self._folder, f"{name}.json")
        try:
            stored = parse_fields(storage.read(uri))
            return StageRecord(
                name, stored.read_number("seconds"), stored.read_object("figures").values
            )
        except MissingObject:
            return None
        except InvalidJson as error:
            raise InvalidCheckpoint(
                f"{uris.redact_uri(uri)} is damaged ({error}): remove it to run the stage again"
            ) from error

    def _write(self, record: StageRecord) -> None:
        values = {"seconds": record.seconds, "figures": dict(record.figures)}
        data = json.dumps(values, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(self._folder, f"{record.name}.json"), data)
