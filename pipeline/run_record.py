"""run.json: the settings of a run, which a rerun compares with its own before it resumes."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from pipeline import __version__, schema, storage, uris
from pipeline.errors import MismatchedOutput, MissingObject
from pipeline.json_reader import InvalidJson, parse_fields

RECORD_NAME = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The settings that decide a run's output; two runs with equal records write the same parts."""

    job: str
    settings: Mapping[str, Any]
    """JSON values only: options, dataset digest, checkpoint hash, proposal parameters. No secrets."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Where the inputs were; for people only, since a moved input is still the same input."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """What settings of `auto` were resolved to when the output was begun; reruns keep these values."""
    schema_version: int = schema.VERSION
    """Version of the schemas that the parts have; 0 in a run.json written before there were versions."""

    @property
    def fingerprint(self) -> str:
        """A digest of job, settings and schema version; every part's schema metadata holds it."""
        identity: dict[str, Any] = {"job": self.job, "settings": self.settings}
        if self.schema_version > 0:  # the digest of a run before versions stays what it was
            identity["schema_version"] = self.schema_version
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def write(self, output: str) -> None:
        """Put run.json, with the versions of the packages in use, into the output."""
        record = {
            "job": self.job,
            "settings": self.settings,
            "inputs": self.inputs,
            "fingerprint": self.fingerprint,
            "schema_version": self.schema_version,
            "versions": collect_versions(),
        }
        if self.resolved:
            record["resolved"] = self.resolved
        data = json.dumps(record, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(output, RECORD_NAME), data)


def read_record(output: str) -> RunRecord | None:
    """The record of the run that wrote an output, or None if there is no run.json.

    Raises:
        MismatchedOutput: the file is not the run.json of a run of this project.
    """
    uri = uris.join(output, RECORD_NAME)
    try:
        stored = parse_fields(storage.read(uri))
        return RunRecord(
            stored.read_text("job"),
            stored.read_object("settings").values,
            stored.read_object("inputs", {}).values,
            stored.read_object("resolved", {}).values,
            stored.read_integer("schema_version", default=0),
        )
    except MissingObject:
        return None
    except InvalidJson as error:
        raise MismatchedOutput(
            f"{uris.redact_uri(uri)} is not a run's record ({error}): choose another --output"
        ) from error


def describe_differences(earlier: RunRecord, current: RunRecord) -> list[str]:
    """One line for the schema version and for each setting that differs, naming both values.

    A digest of a dataset or checkpoint comes with the place where that input was and is.
    """
    if earlier.job != current.job:
        return [f"job: {earlier.job} there, {current.job} now"]
    lines = []
    if earlier.schema_version != current.schema_version:
        version = earlier.schema_version or "none (an earlier release)"
        lines = [f"schema version: {version} there, {current.schema_version} now"]
    old, new = _flatten(earlier.settings), _flatten(current.settings)
    return lines + [
        f"{key}: {_describe(earlier, key, old)} there, {_describe(current, key, new)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


_PLACES = {"dataset": "manifest", "checkpoint": "checkpoint", "proposals.fingerprint": "proposals"}
"""The input that a digest among the settings belongs to."""


def _describe(record: RunRecord, key: str, values: Mapping[str, str]) -> str:
    value = values.get(key, "nothing")
    place = record.inputs.get(_PLACES.get(key, ""))
    digest = value.strip('"')[:8]
    return f"{digest}... of {place}" if place and key in values else value


_PACKAGES = (
    *("ray", "torch", "torchvision", "numpy", "numba", "pyarrow", "pillow"),
    "opencv-contrib-python-headless",
)
"""Packages that decide numbers and files."""


def collect_versions() -> dict[str, str]:
    """Versions of the packages that decide numbers and files, read without importing them."""
    versions = {"fast-rcnn-pipeline": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """JSON texts by dotted path; as texts 1 and true differ, in Python they are equal."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: _shorten(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _shorten(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= 60:
        return text
    return f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
