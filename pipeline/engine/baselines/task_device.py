"""What a task of a training computes on: cores, or a GPU with one core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.runs.placement import ANYWHERE, Need


@dataclass(frozen=True)
class TaskDevice:
    """The cores or the GPU of a task."""

    gpu: bool = False
    cores: int = 1

    @property
    def gpus(self) -> float:
        """GPUs of a task."""
        return 1.0 if self.gpu else 0.0

    @property
    def need(self) -> Need:
        """What a task needs of its node."""
        return ANYWHERE.build_need(CPU=float(self.cores), GPU=self.gpus)

    def build_task(self, function: Callable[..., Any], max_retries: int = 0) -> Any:
        """Make a function a task of Ray that has the device.

        A worker that has used a GPU keeps some of its memory, and the choice of that GPU, so it ends with its
        task.
        """
        on_gpu: dict[str, Any] = {"num_gpus": 1, "max_calls": 1} if self.gpu else {}
        return ray.remote(num_cpus=self.cores, max_retries=max_retries, **on_gpu)(function)
