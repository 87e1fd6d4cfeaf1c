"""The stages of a training, each of which runs once: its record in OUTPUT/stages says that it is finished."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage, uris
from pipeline.errors import InvalidCheckpoint, MissingObject
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.runs.start_totals import StartTotals
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

    def run(self, name: str, work: Callable[[StartTotals], Mapping[str, Any]]) -> StageRecord:
        """Run a stage unless it is finished; `work` leaves its results in the output before it returns.

        Args:
            name: of the stage.
            work: returns the figures of the stage; it gets the sums of all starts that worked on it.

        Raises:
            InvalidCheckpoint: the record of the stage is damaged.
            StorageError: the store does not answer.
        """
        stored = self.read(name)
        if stored is None:
            log.info("stage %s begins", name)
            with StartTotals(locate_driver_totals(self._folder, name)) as totals:
                figures = dict(work(totals))
            seconds = totals.compute()["seconds"]
            stored = StageRecord(name, round(seconds, 3), figures)
            self._write(stored)
            for locate in (locate_driver_totals, locate_worker_totals):
                storage.remove(locate(self._folder, name))
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


def locate_driver_totals(folder: str, name: str) -> str:
    """The object that sums up the time of an unfinished stage, and what its shards report."""
    return uris.join(folder, f"{name}-driver.json")


def locate_worker_totals(folder: str, name: str) -> str:
    """The object that sums up the CPU time of the one task of an unfinished stage."""
    return uris.join(folder, f"{name}-worker.json")
