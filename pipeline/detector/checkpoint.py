"""Checkpoints on any store: `model.safetensors`, and the record `model.json` that describes it.

The record is put last and holds the digest of the weights. Loading therefore detects a half-written
checkpoint, and weights that belong to another record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import storage, uris
from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint_record import (
    CHECKPOINT_RECORD_NAME,
    WEIGHTS_NAME,
    CheckpointRecord,
    read_checkpoint_record,
)
from pipeline.detector.network import FastRCNN
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.tensor_checks import is_finite
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from pipeline.json_reader import describe_value


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and the preprocessing that its weights expect."""

    network: FastRCNN
    """In evaluation mode; its deltas are raw, not normalised."""
    preprocessing: Preprocessing
    digest: str = ""
    """Digest of weights, architecture and preprocessing; empty for a network that was never saved."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the training run added, as JSON values."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; `label_id` of a detection is an index into them."""
        return self.network.architecture.classes


def save_checkpoint(
    checkpoint_uri: str,
    network: FastRCNN,
    preprocessing: Preprocessing,
    *,
    extra: Mapping[str, Any] | None = None,
) -> CheckpointRecord:
    """Put the weights, then the record, into a folder.

    Args:
        checkpoint_uri: the folder; files there with the two names are replaced.
        network: with raw deltas (`targets.fold_targets`), of any dtype and on any device.
        preprocessing: what the weights expect.
        extra: JSON values for readers, such as the recipe and the number of steps.

    Raises:
        StorageError: the folder cannot be written.
    """
    return put_checkpoint(
        checkpoint_uri, network.state_dict(), network.architecture, preprocessing, extra=extra
    )


def put_checkpoint(
    checkpoint_uri: str,
    state: Mapping[str, Tensor],
    architecture: Architecture,
    preprocessing: Preprocessing,
    *,
    extra: Mapping[str, Any] | None = None,
    system: Mapping[str, Any] | None = None,
) -> CheckpointRecord:
    """Put a network's tensors, then the record, into a folder.

    Args:
        checkpoint_uri: as `save_checkpoint` takes it.
        state: the tensors by name, of any dtype and on any device.
        architecture: the network that they belong to.
        preprocessing: what the weights expect.
        extra: JSON values for readers.
        system: of another system than Fast R-CNN, see `CheckpointRecord`.

    Raises:
        StorageError: the folder cannot be written.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in state.items()
    }
    weights = safetensors.torch.save(tensors)
    record = CheckpointRecord(
        architecture,
        preprocessing,
        hashlib.sha256(weights).hexdigest(),
        len(weights),
        dict(extra or {}),
        None if system is None else dict(system),
    )
    record_json = json.dumps(record.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    storage.put(uris.join(checkpoint_uri, WEIGHTS_NAME), weights)
    storage.put(uris.join(checkpoint_uri, CHECKPOINT_RECORD_NAME), record_json)
    return record


def load_checkpoint(checkpoint_uri: str) -> TrainedNetwork:
    """Load the network from a folder, on the CPU, in float32 and in evaluation mode.

    Raises:
        InvalidCheckpoint: a file is missing, damaged, of another version, or does not fit its record, or a
            tensor is not finite float32.
        StorageError: the store cannot be read.
    """
    record = read_checkpoint_record(checkpoint_uri)
    if record.system is not None:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(checkpoint_uri)} is of the system "
            f"{describe_value(record.system.get('name'))}, not of Fast R-CNN: only jobs/detect.py runs it"
        )
    network = load_network(checkpoint_uri, record, lambda: FastRCNN(record.architecture))
    return TrainedNetwork(network, record.preprocessing, record.digest, record.extra)


NetworkT = TypeVar("NetworkT", bound=nn.Module)


def load_network(
    checkpoint_uri: str, record: CheckpointRecord, build: Callable[[], NetworkT]
) -> NetworkT:
    """Load a checkpoint's weights into the network that `build` returns, in evaluation mode.

    Raises:
        InvalidCheckpoint: as `load_checkpoint` raises it.
        StorageError: the store cannot be read.
    """
    weights_uri = uris.join(checkpoint_uri, WEIGHTS_NAME)
    tensors = _parse_tensors(_read_weights(weights_uri, record), weights_uri)
    network = _build_without_weights(build, checkpoint_uri)
    _check_fit(tensors, network.state_dict(), weights_uri)
    _check_values(tensors, weights_uri)
    network.load_state_dict(tensors, assign=True)
    return network.eval()


def _build_without_weights(build: Callable[[], NetworkT], checkpoint_uri: str) -> NetworkT:
    try:
        with torch.device(
            "meta"
        ):  # random weights would be replaced at once: spend no time on them
            return build()
    except (InvalidConfiguration, RuntimeError, ValueError, OverflowError) as error:
        record_uri = uris.redact_uri(uris.join(checkpoint_uri, CHECKPOINT_RECORD_NAME))
        raise InvalidCheckpoint(f"{record_uri} describes no network: {error}") from error


def _read_weights(weights_uri: str, record: CheckpointRecord) -> bytes:
    weights = storage.read(weights_uri)
    if hashlib.sha256(weights).hexdigest() != record.weights_sha256:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights_uri)} is damaged or belongs to another {CHECKPOINT_RECORD_NAME}: its "
            "SHA-256 differs"
        )
    return weights


def _parse_tensors(weights: bytes, weights_uri: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except Exception as error:  # a damaged header fails in many ways
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights_uri)} is not a safetensors file: {error}"
        ) from error


def _check_values(tensors: Mapping[str, Tensor], weights_uri: str) -> None:
    """A network with a single NaN detects nothing, or anything: it must not pass for a trained one."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InvalidCheckpoint(
                f"{uris.redact_uri(weights_uri)} has {name} as {kind}, expected float32"
            )
        if not is_finite(tensor):
            raise InvalidCheckpoint(
                f"{uris.redact_uri(weights_uri)}: {name} has values that are not finite numbers; "
                "train again, or take an earlier checkpoint"
            )


def _check_fit(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], weights_uri: str
) -> None:
    faults = [f"lacks {name}" for name in expected if name not in tensors]
    faults += [f"has an unexpected {name}" for name in tensors if name not in expected]
    faults += [
        f"has {name} as {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 6} more faults" if len(faults) > 6 else ""
        raise InvalidCheckpoint(
            f"{uris.redact_uri(weights_uri)} does not fit the architecture in {CHECKPOINT_RECORD_NAME}: "
            f"{'; '.join(faults[:6])}{more}"
        )
