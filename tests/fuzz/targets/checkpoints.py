"""Checkpoints: the record, the weights, and what the two say about each other."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint, save_checkpoint
from pipeline.detector.network import build_network
from pipeline.detector.preprocessing import Preprocessing
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.target import Target
from tests.fuzz.targets.tensor_changes import change_tensor, find_fault_in_tensors

ARCHITECTURE = Architecture(("cat", "dog"), "tiny", roi_size=2, fc_widths=(8, 8))


@cache
def build_checkpoint() -> tuple[bytes, bytes]:
    """The record and the weights of a small network."""
    uri = "memory://fuzz/checkpoint"
    save_checkpoint(uri, build_network(ARCHITECTURE), Preprocessing(), extra={"steps": 10})
    from pipeline import storage

    return storage.read(f"{uri}/model.json"), storage.read(f"{uri}/model.safetensors")


def _write(folder: Path, random: Random) -> str:
    record, weights = build_checkpoint()
    content = json.loads(record)
    kind = random.random()
    if kind < 0.42:
        content, change = mutate_json(content, random)
        record, form = encode_json(content, random)
        change = ", ".join(filter(None, (change, form)))
    elif kind < 0.75:
        tensors, change = change_tensor(safetensors.torch.load(weights), random, dense=True)
        weights = safetensors.torch.save(tensors)
        record = _describe_weights(content, weights)
    elif kind < 0.86:
        weights, change = mutate_bytes(weights, random)
        if random.random() < 0.7:  # a record that fits: the digest alone must not be what protects
            record = _describe_weights(content, weights)
    else:
        change = "valid"
    (folder / "model.json").write_bytes(record)
    (folder / "model.safetensors").write_bytes(weights)
    return change


def _describe_weights(content: Any, weights: bytes) -> bytes:
    digest = hashlib.sha256(weights).hexdigest()
    content["weights"] |= {"sha256": digest, "bytes": len(weights)}
    return json.dumps(content).encode()


def _read(folder: Path) -> TrainedNetwork:
    return load_checkpoint(str(folder))


def _find_fault(folder: Path, answer: TrainedNetwork) -> str | None:
    fault = find_fault_in_tensors(dict(answer.network.state_dict()))
    if fault is not None:
        return fault
    stored = json.loads((folder / "model.json").read_bytes())
    weights = (folder / "model.safetensors").read_bytes()
    if stored["weights"]["sha256"] != hashlib.sha256(weights).hexdigest():
        return "the weights do not have the digest that the record states"
    if stored["weights"]["bytes"] != len(weights):
        return f"the record states {stored['weights']['bytes']} bytes of {len(weights)}"
    if list(answer.classes) != stored["architecture"]["classes"]:
        return f"the classes are {answer.classes}"
    if "classes" in stored and stored["classes"] != stored["architecture"]["classes"]:
        return f"the record names the classes {stored['classes']} and {answer.classes}"
    settings = answer.preprocessing
    numbers = (
        settings.scale,
        *settings.mean,
        *settings.std,
        settings.short_side,
        settings.max_side,
    )
    if not all(map(math.isfinite, numbers)) or min(settings.std) <= 0 or settings.short_side < 1:
        return f"the preprocessing is {settings}"
    if any(isinstance(number, bool) for number in numbers):
        return f"the preprocessing has a boolean: {settings}"
    return None


TARGETS = (Target("checkpoint", _write, _read, _find_fault),)
