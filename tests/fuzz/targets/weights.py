"""Pretrained weights as `.pth` and `.safetensors`."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from random import Random

import safetensors.torch
import torch
from torch import Tensor

from pipeline.detector.network import FastRCNN, build_network
from pipeline.detector.weights import LoadedWeights, load_pretrained
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.target import Target
from tests.fuzz.targets.checkpoints import ARCHITECTURE
from tests.fuzz.targets.tensor_changes import change_tensor, find_fault_in_tensors

_Answer = tuple[FastRCNN, LoadedWeights]


@cache
def _build_state_dict() -> dict[str, Tensor]:
    return dict(build_network(ARCHITECTURE, seed=1).backbone.state_dict())


def _write(folder: Path, random: Random) -> str:
    tensors, change = _build_state_dict(), "valid"
    ending = random.choice(("pth", "safetensors"))
    is_damaged = random.random() < 0.35
    if not is_damaged:
        tensors, change = change_tensor(tensors, random, dense=ending == "safetensors")
    if ending == "safetensors":
        data = safetensors.torch.save(tensors)
    else:
        buffer = io.BytesIO()
        is_zip = random.random() < 0.6
        content = random.choice((tensors, tensors, tensors, {"state_dict": tensors}, list(tensors)))
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
        data = buffer.getvalue()
    if is_damaged:
        data, change = mutate_bytes(data, random)
    (folder / f"weights.{ending}").write_bytes(data)
    return f"{ending}: {change}"


def _read(folder: Path) -> _Answer:
    network = build_network(ARCHITECTURE)
    (path,) = folder.glob("weights.*")
    return network, load_pretrained(network, str(path))


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    network, loaded = answer
    fault = find_fault_in_tensors(dict(network.state_dict()))
    if fault is not None:
        return fault
    names = set(network.backbone.state_dict())
    if set(loaded.loaded) | set(loaded.missing) != names or not loaded.loaded:
        return f"of {len(names)} tensors, {len(loaded.loaded)} are loaded, {len(loaded.missing)} missing"
    return None


TARGETS = (Target("weights", _write, _read, _find_fault),)
