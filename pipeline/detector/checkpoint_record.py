"""The record of a checkpoint: everything that a driver needs to know. Importing this loads no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration, MissingObject
from pipeline.json_reader import InvalidJson, describe_value, parse_fields

WEIGHTS_NAME = "model.safetensors"
CHECKPOINT_RECORD_NAME = "model.json"
RECORD_VERSION = 1


@dataclass(frozen=True)
class CheckpointRecord:
    """The content of `model.json`."""

    architecture: Architecture
    preprocessing: Preprocessing
    weights_sha256: str
    """Digest of the bytes of `model.safetensors`."""
    weights_bytes: int
    """Size of `model.safetensors`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the training run adds, as JSON values; it does not change what the network computes."""
    system: Mapping[str, Any] | None = None
    """How another system than Fast R-CNN uses the network (`pipeline/baselines/settings.py`); None: as Fast
    R-CNN does."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; `label_id` of a detection is an index into them."""
        return self.architecture.classes

    @property
    def digest(self) -> str:
        """A digest of everything that decides the network's output."""
        identity: dict[str, Any] = {
            "architecture": self.architecture.to_json(),
            "preprocessing": self.preprocessing.to_json(),
            "weights": self.weights_sha256,
        }
        if self.system is not None:
            identity["system"] = dict(self.system)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The content of `model.json`."""
        values = {
            "version": RECORD_VERSION,
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
        if self.system is not None:
            values["system"] = dict(self.system)
        return values


def read_checkpoint_record(checkpoint_uri: str) -> CheckpointRecord:
    """Read the record in a checkpoint's folder and check the size of the weights, but do not read them.

    Raises:
        InvalidCheckpoint: no record, a record of another version, or weights of another size.
        StorageError: the store cannot be read.
    """
    record_uri = uris.join(checkpoint_uri, CHECKPOINT_RECORD_NAME)
    redacted = uris.redact_uri(record_uri)
    try:
        content = storage.read(record_uri)
    except MissingObject as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(checkpoint_uri)} is no checkpoint: {redacted} does not exist; expected a "
            f"folder that training wrote, with {CHECKPOINT_RECORD_NAME} and {WEIGHTS_NAME}"
        ) from error
    try:
        stored = parse_fields(content)
        version = stored.read_integer("version")
    except InvalidJson as error:
        raise InvalidCheckpoint(f"{redacted} is not a checkpoint's record: {error}") from error
    if version != RECORD_VERSION:
        raise InvalidCheckpoint(
            f"{redacted} has version {version}, this program reads {RECORD_VERSION}"
        )
    try:
        record = CheckpointRecord(
            Architecture.from_json(stored.read_object("architecture").values),
            Preprocessing.from_json(stored.read_object("preprocessing").values),
            stored.read_object("weights").read_text("sha256"),
            stored.read_object("weights").read_integer("bytes"),
            stored.read_object("extra").values,
            stored.read_object("system").values if "system" in stored.values else None,
        )
    except (InvalidJson, InvalidConfiguration) as error:
        raise InvalidCheckpoint(f"{redacted} cannot be used: {error}") from error
    named = stored.values.get("classes", list(record.classes))
    if named != list(record.classes):
        raise InvalidCheckpoint(
            f"{redacted} contradicts itself: its classes are {describe_value(named)}, those of its "
            f"architecture {describe_value(list(record.classes))}"
        )
    _check_size(uris.join(checkpoint_uri, WEIGHTS_NAME), record)
    return record


def _check_size(weights_uri: str, record: CheckpointRecord) -> None:
    try:
        size = storage.get_size(weights_uri)
    except MissingObject as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights_uri)} does not exist, though {CHECKPOINT_RECORD_NAME} does"
        ) from error
    if size != record.weights_bytes:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights_uri)} has {size} bytes, {CHECKPOINT_RECORD_NAME} says "
            f"{record.weights_bytes}: it is truncated or belongs to another record"
        )
