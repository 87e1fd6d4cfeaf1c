"""The GPUs of R-CNN's and SPPnet's trainings: who settles the precision, what is awaited, a lost device."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import ray
import torch

from pipeline.engine import cluster
from pipeline.engine.baselines import extraction, run, training_record
from pipeline.engine.baselines.fine_tuning_stage import run_fine_tuning
from pipeline.engine.baselines.svm_stage import run_svm_training
from pipeline.engine.baselines.task_device import TaskDevice
from pipeline.errors import NoCapacity
from pipeline.run_record import RunRecord
from pipeline.runs.report import Report
from pipeline.training.recipe import Recipe


@pytest.mark.parametrize(("gpu", "device"), [(True, "cuda"), (False, "cpu")])
def test_precision_is_settled_on_a_device_that_will_compute(
    gpu: bool, device: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = MagicMock()
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(ray, "get", lambda reference: "bf16")
    recipe = Recipe(precision="auto")
    waits: list[Any] = []
    monkeypatch.setattr(cluster, "await_any", lambda *args, **options: waits.append(options))
    settled = training_record.settle_precision(
        recipe, RunRecord("train", {}, {}), str(tmp_path), gpu=gpu, no_capacity_after=9.0
    )
    assert waits == [{"gpus": float(gpu)}]
    assert settled.precision == "bf16"
    assert ("num_gpus" in remote.call_args.kwargs) == gpu
    remote.return_value.return_value.remote.assert_called_once_with(device)


@pytest.mark.parametrize(
    ("stage", "gpu", "options"),
    [
        (run_fine_tuning, True, {"num_cpus": 1, "num_gpus": 1, "max_calls": 1, "max_retries": 3}),
        (run_fine_tuning, False, {"num_cpus": 8, "max_retries": 3}),
        (run_svm_training, True, {"num_cpus": 1, "max_retries": 3}),
    ],
)
def test_only_fine_tuning_holds_a_gpu_and_its_worker_ends_with_it(
    stage: run.Stage, gpu: bool, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = MagicMock()
    monkeypatch.setattr(ray, "remote", remote)
    device = run._choose_device(Mock(gpu=gpu, threads=8), stage)
    device.build_task(Mock(), 3)
    remote.assert_called_once_with(**options)
    amounts = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0)}
    assert device.need.amounts == {name: amount for name, amount in amounts.items() if amount}


def test_a_stage_without_room_ends_with_what_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr(ray, "wait", lambda tasks, timeout: ([], tasks))
    monkeypatch.setattr(ray, "cancel", cancelled.append)
    monkeypatch.setattr(cluster, "describe_missing", lambda need: f"{need}")
    task = Mock()
    with pytest.raises(NoCapacity, match="the stage svm has waited 0 s for CPU 1 and GPU 1"):
        run._await_task(Mock(), "svm", task, TaskDevice(gpu=True).need, 0.0)
    assert cancelled == [task]


class Ended(BaseException):
    """Stands for the end of the process."""


def _end(code: int) -> None:
    raise Ended(code)


def _compute_after(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Extract an image's features with a network that raises."""
    monkeypatch.setattr(os, "_exit", _end)
    image = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(extraction, "decode_for_boxes", lambda *_: image)
    windows = np.array([[0, 0, 4, 4]], np.float32), np.zeros(1, np.int32)
    monkeypatch.setattr(extraction, "list_windows", lambda *_: windows)
    network = Mock()
    network.compute.side_effect = error
    encoded = Mock(failure=None)
    features = extraction._extract_image(
        MagicMock(), encoded, None, network=network, maps=None, report=Report()
    )
    assert features is None
    return encoded.failure


def test_a_lost_gpu_ends_the_worker_and_full_memory_fails_one_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = torch.AcceleratorError("CUDA error: out of memory")
    assert _compute_after(full, monkeypatch).error_type == "AcceleratorError"
    lost = torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(Ended):
        _compute_after(lost, monkeypatch)
