"""The JSON part of a checkpoint: all that a driver needs to know of it. Importing this is free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage
from pipeline.detector.architecture import Architecture
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration

WEIGHTS_NAME = "model.safetensors"
RECORD_NAME = "model.json"
VERSION = 1


@dataclass(frozen=True)
class CheckpointRecord:
    """What `model.json` says."""

    architecture: Architecture
    preprocessing: Preprocessing
    weights_sha256: str
    """Of the bytes of `model.safetensors`."""
    weights_bytes: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the training run adds, as JSON; it does not change what the model computes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; `label_id` of a detection counts them from 0."""
        return self.architecture.classes

    @property
    def digest(self) -> str:
        """A digest of all that decides the model's output."""
        told = {
            "architecture": self.architecture.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "weights": self.weights_sha256,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`."""
        return {
            "version": VERSION,
            "classes": list(self.classes),
            "architecture": self.architecture.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "weights": {
                "file": WEIGHTS_NAME,
                "sha256": self.weights_sha256,
                "bytes": self.weights_bytes,
            },
            "extra": dict(self.extra),
        }


def peek(uri: str) -> CheckpointRecord:
    """The record of the checkpoint in the folder `uri`; of the weights only the size is looked at.

    Raises:
        InvalidCheckpoint: the folder holds no record, not one of this version, or no weights of its size.
        StorageError: the store cannot be read.
    """
    place = storage.join(uri, RECORD_NAME)
    shown = storage.shown(place)
    try:
        data = storage.read(place)
    except storage.MissingObject as error:
        raise InvalidCheckpoint(
            f"{storage.shown(uri)} is no checkpoint: {shown} does not exist; expected is a folder that "
            f"training wrote, with {RECORD_NAME} and {WEIGHTS_NAME}"
        ) from error
    try:
        stored = json.loads(data)
        version = stored["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidCheckpoint(f"{shown} is not a checkpoint's record: {error!r}") from error
    if version != VERSION:
        raise InvalidCheckpoint(f"{shown} has version {version}, this program reads {VERSION}")
    try:
        record = CheckpointRecord(
            Architecture.from_json(stored["architecture"]),
            Preprocessing.from_json(stored["preprocessing"]),
            str(stored["weights"]["sha256"]),
            int(stored["weights"]["bytes"]),
            dict(stored["extra"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidConfiguration) as error:
        raise InvalidCheckpoint(f"{shown} cannot be used: {error!r}") from error
    _check_size(storage.join(uri, WEIGHTS_NAME), record)
    return record


def _check_size(place: str, record: CheckpointRecord) -> None:
    try:
        found = storage.size(place)
    except storage.MissingObject as error:
        raise InvalidCheckpoint(
            f"{storage.shown(place)} does not exist, though {RECORD_NAME} does"
        ) from error
    if found != record.weights_bytes:
        raise InvalidCheckpoint(
            f"{storage.shown(place)} has {found} bytes, {RECORD_NAME} says {record.weights_bytes}: it is "
            "truncated or belongs to another record"
        )
