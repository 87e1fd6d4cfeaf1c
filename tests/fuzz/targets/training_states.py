"""The pointer to a training's latest state, the state, and the final network beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from pipeline.training.state import (
    FOLDER,
    POINTER,
    LatestState,
    load_state,
    read_latest_state,
    save_state,
    set_latest_state,
)
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.target import Target
from tests.fuzz.targets.checkpoints import build_checkpoint

_RUN = "f" * 64
_STEP = 20


@dataclass(frozen=True)
class _Answer:
    """What a training finds when it resumes."""

    latest: LatestState | None
    state: dict[str, Any]


def _write(folder: Path, random: Random) -> str:
    output = str(folder)
    for step in (10, _STEP):
        save_state(output, step, {"model": {"weight": torch.ones(3)}}, _RUN)
    set_latest_state(output, _STEP, random.random() < 0.6, _RUN)
    for name, data in zip(("model.json", "model.safetensors"), build_checkpoint(), strict=True):
        if random.random() < 0.7:
            (folder / name).write_bytes(data)
    kind = random.random()
    if kind < 0.5:
        path = folder / FOLDER / POINTER
        content, change = mutate_json(json.loads(path.read_bytes()), random)
        data, form = encode_json(content, random)
        path.write_bytes(data)
        return f"the pointer: {', '.join(filter(None, (change, form)))}"
    states = sorted((folder / FOLDER).glob("state-*.pt"))
    path = states[-1]
    if kind < 0.65:
        path.write_bytes(states[0].read_bytes())
        return "the latest state is a copy of the one before"
    if kind < 0.75:
        path.unlink()
        return "the latest state is missing"
    data, change = mutate_bytes(path.read_bytes(), random)
    path.write_bytes(data)
    return f"the state: {change}"


def _read(folder: Path) -> _Answer:
    latest = read_latest_state(str(folder), _RUN)
    state = {} if latest is None else load_state(str(folder), latest.step, _RUN)
    return _Answer(latest, state)


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    if answer.latest is None:
        pointer = json.loads((folder / FOLDER / POINTER).read_bytes())
        return (
            f"a pointer of this run counts as none: {pointer}"
            if pointer.get("run") == _RUN
            else None
        )
    pointer = json.loads((folder / FOLDER / POINTER).read_bytes())
    step, is_finished = answer.latest.step, answer.latest.is_finished
    if type(step) is not int or step != pointer["step"]:
        return f"the step is {step!r}"
    if is_finished and pointer["finished"] is not True:
        return f"finished {pointer['finished']!r} counts as finished"
    is_complete = all(
        (folder / name).is_file() and (folder / name).read_bytes() == data
        for name, data in zip(("model.json", "model.safetensors"), build_checkpoint(), strict=True)
    )
    if is_finished and not is_complete:
        return "the training counts as finished, but its network is not there"
    if answer.state.get("step") != step:
        return f"the state of step {step} is of step {answer.state.get('step')}"
    if answer.state.get("run") != _RUN:
        return f"the state is of run {answer.state.get('run')!r:.60}"
    return None


TARGETS = (Target("training_state", _write, _read, _find_fault),)
