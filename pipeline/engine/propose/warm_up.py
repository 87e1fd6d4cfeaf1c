"""Proposal kernels made ready before the fan-out: compiled once per node, then loaded by every worker."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any
from uuid import uuid4

import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import cluster
from pipeline.proposals.settings import ProposalSettings

log = logging.getLogger(__name__)

COMPILE_SECONDS = 300.0
LOAD_SECONDS = 15.0
MEETING_SECONDS = 5.0


def warm_up(settings: ProposalSettings) -> None:
    """Compile the kernels on one worker of each node, then load them on as many as it has cores."""
    start = perf_counter()
    hosts = [host for host in cluster.capacity().hosts if host.cpus]
    _await([_on(host.node, _compile).remote(settings) for host in hosts], COMPILE_SECONDS)
    meeting = uuid4().hex
    loads = [
        _on(host.node, _load).remote(settings, meeting, host.cpus)
        for host in hosts
        for _ in range(host.cpus)
    ]
    _await(loads, LOAD_SECONDS)
    log.info("proposal kernels are ready after %.1f s", perf_counter() - start)


def _on(node: str, task: Any) -> Any:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))


def _await(tasks: Sequence[ObjectRef[None]], seconds: float) -> None:
    """Wait for all, but not for ever: a worker that is not warm is slow once and does no harm."""
    _, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=seconds)
    for (
        task
    ) in late:  # another job has the cores: what waits for one must not come in the way later
        ray.cancel(task)


@ray.remote(num_cpus=1, max_retries=0)
def _compile(settings: ProposalSettings) -> None:
    _make_ready(settings)


@ray.remote(num_cpus=1, max_retries=0)
def _load(settings: ProposalSettings, meeting: str, workers: int) -> None:
    """Load the kernels and wait for the node's other workers: one that is quick must not take two turns.

    The workers meet in a folder of the node, in which each puts a file of its own.
    """
    folder = Path(tempfile.gettempdir()) / f"warm-up-{meeting}"
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = monotonic() + MEETING_SECONDS
    _make_ready(settings)
    while folder.is_dir() and monotonic() < deadline:
        if sum(1 for _ in folder.glob("*")) >= workers:
            break
        sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def _make_ready(settings: ProposalSettings) -> None:
    from pipeline import proposals  # noqa: PLC0415  (the driver needs no kernels)

    if settings.backend == "native":
        proposals.warm_up(settings.strategy)
