"""How the workers of Ray Train meet: torch's process group, without torch in the driver and the controller.

Ray's own `TorchConfig` does the same, but its module imports torch, so the driver and the controller, which
never compute, would load it before the workers start: five seconds of each training.
"""

from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train.backend import Backend, BackendConfig

SHUTDOWN_SECONDS = 30.0
"""How long the workers may take to leave the group."""


@dataclass
class ProcessGroupConfig(BackendConfig):
    """The process group of the workers."""

    backend: str
    """gloo or nccl."""
    timeout_seconds: float
    """How long a worker waits for the others in a collective operation."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls when the workers have started and when they end."""
        return ProcessGroupBackend


class ProcessGroupBackend(Backend):
    """Lets the workers join and leave the group."""

    share_cuda_visible_devices = True
    """NCCL's workers on one node must see each other's GPUs."""

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        """Let all workers join; the first one is where they meet."""
        assert isinstance(backend_config, ProcessGroupConfig)
        address = worker_group.execute_single(0, choose_address)
        count = len(worker_group)
        settings = (backend_config.backend, address, count, backend_config.timeout_seconds)
        joined: list[Any] = [
            worker_group.execute_single_async(rank, join_group, rank, *settings)
            for rank in range(count)
        ]
        ray.get(joined)

    def on_shutdown(
        self,
        worker_group: BaseWorkerGroup,
        backend_config: BackendConfig,  # noqa: ARG002  Ray Train passes it
    ) -> None:
        """Let all workers leave; one that hangs is ended by Ray Train afterwards."""
        answers: list[Any] = worker_group.execute_async(leave_group)
        ray.wait(answers, num_returns=len(answers), timeout=SHUTDOWN_SECONDS)


def choose_address() -> str:
    """URL of a free port on this node."""
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    is_v6 = ":" in host
    with closing(socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return f"tcp://[{host}]:{port}" if is_v6 else f"tcp://{host}:{port}"


def join_group(rank: int, backend: str, address: str, count: int, timeout_seconds: float) -> None:
    """Join the group, as soon as all others do.

    Args:
        rank: of this worker.
        backend: gloo or nccl.
        address: where the first worker waits, as `choose_address` gives it.
        count: of workers.
        timeout_seconds: of each collective operation, this one included.
    """
    from torch import distributed  # noqa: PLC0415

    distributed.init_process_group(
        backend,
        init_method=address,
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=timeout_seconds),
    )


def leave_group() -> None:
    """Leave the group, if this worker has joined one."""
    from torch import distributed  # noqa: PLC0415

    if distributed.is_initialized():
        distributed.destroy_process_group()
