"""Prepares the proposal kernels: compiles them once per node, then loads them into every worker."""

from __future__ import annotations

import contextlib
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
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import cluster
from pipeline.engine.node_versions import NodeVersions, VersionCheck, read_own_versions
from pipeline.engine.shards.retry_policy import unwrap_error
from pipeline.errors import InvalidConfiguration, PipelineError
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.placement import ANYWHERE, Placement

log = logging.getLogger(__name__)

COMPILE_TIMEOUT = 300.0
"""Seconds to wait for the compilation on all nodes."""
LOAD_TIMEOUT = 15.0
"""Seconds to wait for all workers to load the kernels."""
MEETING_TIMEOUT = 5.0
"""Seconds that a worker waits for the other workers of its node."""


def warm_up_workers(
    settings: ProposalSettings,
    placement: Placement = ANYWHERE,
    versions: VersionCheck | None = None,
) -> None:
    """Compile the kernels on one worker of each node, then load them on as many as will work there.

    Args:
        settings: how the boxes are made.
        placement: which nodes will run the tasks.
        versions: warns of nodes with other versions than the driver's; None takes a new one.

    Raises:
        InvalidConfiguration: they cannot be compiled on any node, so no image can be searched.
    """
    start = perf_counter()
    tasks = {host.node: host.count_tasks(placement) for host in cluster.get_capacity().hosts}
    tasks = {node: count for node, count in tasks.items() if count}
    compilations = [_place(node, _compile).remote(settings) for node in tasks]
    nodes = _check_compilations(_await(compilations, COMPILE_TIMEOUT))
    (versions or VersionCheck()).check(nodes)
    meeting = uuid4().hex
    loads = [
        _place(node, _load).remote(settings, meeting, count)
        for node, count in tasks.items()
        for _ in range(count)
    ]
    _await(loads, LOAD_TIMEOUT)
    log.info("proposal kernels are ready after %.1f s", perf_counter() - start)


def compare_nodes(placement: Placement, versions: VersionCheck) -> None:
    """Warn of nodes with other versions than the driver's, where tasks need no kernels.

    Args:
        placement: which nodes will run the tasks.
        versions: gets the versions of each node.
    """
    hosts = cluster.get_capacity().hosts
    tasks = [_place(h.node, _read_versions).remote() for h in hosts if h.count_tasks(placement)]
    for task in _await(tasks, LOAD_TIMEOUT):
        with contextlib.suppress(RayError):  # a node that is lost meanwhile
            versions.check([ray.get(task)])


def _place(node: str, task: Any) -> Any:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True))


def _await(tasks: Sequence[ObjectRef[Any]], seconds: float) -> list[ObjectRef[Any]]:
    """The tasks that ended within a limit: a worker that is not warm is slow once, which does no harm."""
    ended, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=seconds)
    # Another job has the cores: a task that waits for one must not get in the way later.
    for task in late:
        ray.cancel(task)
    return ended


def _check_compilations(ended: Sequence[ObjectRef[NodeVersions]]) -> list[NodeVersions]:
    """Raise the error of the code if it failed wherever it ran; a worker that died says nothing about it.

    Returns:
        The versions of the nodes that compiled.
    """
    faults, nodes = [], []
    for task in ended:
        try:
            nodes.append(ray.get(task))
        except RayTaskError as error:
            faults.append(unwrap_error(error))
        except RayError as error:
            log.warning("a worker that compiled the proposal kernels was lost: %s", error)
    if not faults:
        return nodes
    reason = f"{type(faults[0]).__name__}: {faults[0]}".splitlines()[0]
    if len(faults) < len(ended):
        log.warning("%d nodes cannot compile the proposal kernels: %s", len(faults), reason)
    elif isinstance(faults[0], PipelineError):
        raise faults[0]
    else:
        raise InvalidConfiguration(
            f"the proposal kernels cannot be compiled on any node: {reason}"
        ) from faults[0]
    return nodes


@ray.remote(num_cpus=1, max_retries=0)
def _compile(settings: ProposalSettings) -> NodeVersions:
    _load_kernels(settings)
    return read_own_versions()


@ray.remote(num_cpus=1, max_retries=0)
def _read_versions() -> NodeVersions:
    return read_own_versions()


@ray.remote(num_cpus=1, max_retries=0)
def _load(settings: ProposalSettings, meeting: str, workers: int) -> None:
    """Load the kernels and wait for the node's other workers, so that a quick one does not load twice.

    The workers meet in a folder on the node, where each puts a file.
    """
    folder = Path(tempfile.gettempdir()) / f"warm-up-{meeting}"
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    deadline = monotonic() + MEETING_TIMEOUT
    _load_kernels(settings)
    while folder.is_dir() and monotonic() < deadline:
        if sum(1 for _ in folder.glob("*")) >= workers:
            break
        sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def _load_kernels(settings: ProposalSettings) -> None:
    from pipeline import proposals  # noqa: PLC0415  (the driver needs no kernels)

    if settings.backend == "native":
        proposals.warm_up_kernels(settings.strategy, settings.load_ranking())
