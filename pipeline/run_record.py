"""run.json: what a run was told to do, so that a rerun can tell whether it is the same run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from pipeline import __version__, storage
from pipeline.errors import MismatchedOutput

NAME = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """The settings that decide a run's output; two runs with equal settings write the same parts."""

    job: str
    settings: Mapping[str, Any]
    """JSON values only: options, dataset digest, checkpoint hash, proposal parameters. No secrets."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Where the inputs lay; for the reader only, since a moved input is still the same input."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """What a setting that says auto came to when the output was begun; reruns keep to it."""

    @property
    def fingerprint(self) -> str:
        """A digest of job and settings; it stands in every part's schema metadata."""
        told = json.dumps({"job": self.job, "settings": self.settings}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def write(self, output: str) -> None:
        """Put run.json, with the versions at work, into the output."""
        record = {
            "job": self.job,
            "settings": self.settings,
            "inputs": self.inputs,
            "fingerprint": self.fingerprint,
            "versions": versions(),
        }
        if self.resolved:
            record["resolved"] = self.resolved
        data = json.dumps(record, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(storage.join(output, NAME), data)


def read_record(output: str) -> RunRecord | None:
    """The record of the run that wrote an output, or None where there is none.

    Raises:
        MismatchedOutput: a run.json that no run of this project wrote.
    """
    uri = storage.join(output, NAME)
    try:
        stored = json.loads(storage.read(uri))
        return RunRecord(
            stored["job"],
            stored["settings"],
            stored.get("inputs", {}),
            stored.get("resolved", {}),
        )
    except storage.MissingObject:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MismatchedOutput(
            f"{storage.shown(uri)} is not a run's record: choose another --output"
        ) from error


def differences(before: RunRecord, now: RunRecord) -> list[str]:
    """One line per setting that differs, naming both values.

    A dataset and a checkpoint are told by their digests; where they lay then and now is added.
    """
    if before.job != now.job:
        return [f"job: {before.job} there, {now.job} now"]
    old, new = _flat(before.settings), _flat(now.settings)
    return [
        f"{key}: {_told(before, key, old)} there, {_told(now, key, new)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


_PLACES = {"dataset": "manifest", "checkpoint": "checkpoint", "proposals.fingerprint": "proposals"}
"""Which input a digest among the settings is of."""


def _told(record: RunRecord, key: str, values: Mapping[str, str]) -> str:
    value = values.get(key, "nothing")
    place = record.inputs.get(_PLACES.get(key, ""))
    digest = value.strip('"')[:8]
    return f"{digest}... of {place}" if place and key in values else value


def versions() -> dict[str, str]:
    """Versions of what decides numbers and files; asked of the installation, nothing is imported."""
    found = {"fast-rcnn-pipeline": __version__, "python": platform.python_version()}
    for name in ("ray", "torch", "torchvision", "numpy", "numba", "pyarrow", "pillow"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """JSON texts by dotted path: 1 and true are equal in Python, but not as texts."""
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: _short(value)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    if len(text) <= 60:
        return text
    return f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
