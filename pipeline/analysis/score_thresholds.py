"""`thresholds.json`: the lowest score that counts, over all classes and per class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import storage, uris
from pipeline.analysis.operating_points import OperatingPoints
from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, JsonFields, parse_fields

_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ScoreThresholds:
    """The lowest scores that count."""

    overall: float | None
    """For classes that are not in `per_class`; None keeps all their detections."""
    per_class: Mapping[str, float]

    def get_threshold(self, label: str) -> float | None:
        """The lowest score that counts for a class; None keeps all its detections."""
        return self.per_class.get(label, self.overall)


def choose_thresholds(points: OperatingPoints) -> ScoreThresholds:
    """The scores that are best for F1; classes without true detections get the overall one."""
    return ScoreThresholds(
        points.best_score,
        {
            row.label: row.best.score
            for row in points.per_class
            if row.label is not None and row.best
        },
    )


def write_thresholds(uri: str, thresholds: ScoreThresholds) -> None:
    """Put the thresholds as JSON: `{"overall": 0.5, "per_class": {"cat": 0.4}}`."""
    content = {"overall": thresholds.overall, "per_class": dict(thresholds.per_class)}
    storage.put(uri, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")


def read_thresholds(uri: str) -> ScoreThresholds:
    """Read thresholds as `write_thresholds` puts them.

    Raises:
        InvalidConfiguration: the object is not such JSON; names the URI and the field.
        StorageError: the object does not exist or cannot be read.
    """
    data = storage.read(uri, _MAX_BYTES)
    try:
        return _parse(parse_fields(data))
    except InvalidJson as error:
        raise InvalidConfiguration(
            f"{uris.redact_uri(uri)} holds no thresholds: {error}; expected "
            '{"overall": 0.5, "per_class": {"cat": 0.4}}, as `analyze` writes it'
        ) from error


def _parse(fields: JsonFields) -> ScoreThresholds:
    fields.check_names(["overall", "per_class"])
    stated = fields.without_nulls()
    per_class = stated.read_object("per_class", JsonFields({}))
    return ScoreThresholds(
        stated.read_number("overall", None),
        {label: per_class.read_number(label) for label in per_class.values},
    )
