"""A trained model on any store: `model.safetensors`, and `model.json` that says what it is.

The record is put last and holds the digest of the weights, so a half-written checkpoint, or weights of
one run beside the record of another, is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pipeline import storage
from pipeline.detector.checkpoint_record import (
    RECORD_NAME,
    WEIGHTS_NAME,
    CheckpointRecord,
    peek,
)
from pipeline.detector.network import FastRCNN
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidCheckpoint

__all__ = ["Checkpoint", "load", "peek", "save"]


@dataclass(frozen=True)
class Checkpoint:
    """A network with what belongs to it."""

    model: FastRCNN
    """In evaluation mode; its deltas are raw, not normalised."""
    preprocessing: Preprocessing
    digest: str = ""
    """Of weights, architecture and preprocessing; empty for a model that was never saved."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; `label_id` of a detection counts them from 0."""
        return self.model.architecture.classes


def save(
    uri: str,
    model: FastRCNN,
    preprocessing: Preprocessing,
    *,
    extra: Mapping[str, Any] | None = None,
) -> CheckpointRecord:
    """Put weights, then record, into the folder `uri`.

    Args:
        uri: the folder; what lies there under the two names is replaced.
        model: with raw deltas (`targets.fold_targets`), of any dtype and on any device.
        preprocessing: of its weights.
        extra: JSON values for the reader, such as the recipe and the number of steps.

    Raises:
        StorageError: the folder cannot be written.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    record = CheckpointRecord(
        model.architecture,
        preprocessing,
        hashlib.sha256(data).hexdigest(),
        len(data),
        dict(extra or {}),
    )
    told = json.dumps(record.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    storage.put(storage.join(uri, WEIGHTS_NAME), data)
    storage.put(storage.join(uri, RECORD_NAME), told)
    return record


def load(uri: str) -> Checkpoint:
    """The checkpoint in the folder `uri`, on the CPU, float32, in evaluation mode.

    Raises:
        InvalidCheckpoint: a file is missing, damaged, of another version, or does not fit its record.
        StorageError: the store cannot be read.
    """
    record = peek(uri)
    place = storage.join(uri, WEIGHTS_NAME)
    tensors = _tensors(_verified(place, record), storage.shown(place))
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = FastRCNN(record.architecture)
    _check_fit(tensors, model.state_dict(), storage.shown(place))
    model.load_state_dict(tensors, assign=True)
    return Checkpoint(model.eval(), record.preprocessing, record.digest, record.extra)


def _verified(place: str, record: CheckpointRecord) -> bytes:
    shown = storage.shown(place)
    data = storage.read(place)
    if hashlib.sha256(data).hexdigest() != record.weights_sha256:
        raise InvalidCheckpoint(
            f"{shown} is damaged or belongs to another {RECORD_NAME}: its SHA-256 differs"
        )
    return data


def _tensors(data: bytes, shown: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InvalidCheckpoint(f"{shown} is not a safetensors file: {error}") from error


def _check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], shown: str) -> None:
    faults = [f"lacks {name}" for name in expected if name not in tensors]
    faults += [f"has {name} too many" for name in tensors if name not in expected]
    faults += [
        f"has {name} as {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 6} faults more" if len(faults) > 6 else ""
        raise InvalidCheckpoint(
            f"{shown} does not fit the architecture in {RECORD_NAME}: {'; '.join(faults[:6])}{more}"
        )
