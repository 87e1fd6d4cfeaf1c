"""The Ray cluster: connect to one or start one, ask what it has, set the environment of its workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import ray

from pipeline.engine.capacity import Capacity, Host
from pipeline.engine.local_ray import prepare_session_folder, provide_token
from pipeline.engine.named_cluster import get_address, is_cluster_named
from pipeline.engine.ray_address import check_address
from pipeline.errors import InvalidConfiguration, NoCapacity
from pipeline.runs.placement import ANYWHERE, Need, Placement

log = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds between log lines while something is awaited."""
CAPACITY_EVERY = 5.0
"""Seconds between looks at the living nodes: they may join and leave."""

WORKER_ENVIRONMENT = {
    # One thread per worker: Ray owns the cores. Torch's threads are set where an actor starts.
    "OMP_NUM_THREADS": "1",
    # A thread that spins while it waits takes the core from the one it waits for: with two threads on
    # busy cores, small convolutions took 20 times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
    "NUMBA_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
}


@contextlib.contextmanager
def connect_to_cluster() -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS` (which `ray job submit` sets), else start a local Ray.

    A Ray started here is stopped at the end of the block. If the process is already connected (a notebook,
    or a job that calls several stages), this connection is used and left open.

    Raises:
        InvalidConfiguration: no cluster answers at that address, or Ray cannot start on this machine.
    """
    # Otherwise Ray prints `Unhandled error` for each failed task whose result the driver drops: the chunks of
    # a task that failed, or work left when a run ends. The driver reports or retries every error itself.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if ray.is_initialized():
        yield
        return
    address = get_address()
    check_address(address)
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        session_folder = None
        if address == "local":
            session_folder = stack.enter_context(prepare_session_folder())
            stack.enter_context(provide_token())
        _start_ray(address, session_folder)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own exits without a message
        try:
            yield
        finally:
            ray.shutdown()


def _start_ray(address: str, session_folder: str | None) -> None:
    numba_cache = {name: os.environ[name] for name in ("NUMBA_CACHE_DIR",) if name in os.environ}
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            logging_level=logging.ERROR,
            log_to_driver=log.isEnabledFor(logging.DEBUG),
            runtime_env={"env_vars": WORKER_ENVIRONMENT | numba_cache},
            _temp_dir=session_folder,
        )
    except Exception as error:  # Ray raises a bare Exception if a node does not start in time
        text = " ".join(str(error).split())
        if address == "local":
            raise InvalidConfiguration(f"Ray does not start on this machine: {text}") from error
        raise InvalidConfiguration(
            f"RAY_ADDRESS {address}: the connection failed: {text}"
        ) from error


def check_ray_address() -> None:
    """Reject a `RAY_ADDRESS` where no cluster answers, before a job reads its inputs.

    Raises:
        InvalidConfiguration: as `check_address`.
    """
    if not ray.is_initialized():
        check_address(get_address())


def is_local() -> bool:
    """Whether the cluster is, or will be, a Ray that this process starts: one machine, one disk."""
    return not is_cluster_named() and not ray.is_initialized()


def _list_nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def get_capacity() -> Capacity:
    """The living nodes and their total resources, as Ray reports them."""
    alive = [node for node in _list_nodes() if node["Alive"]]
    totals = [node["Resources"] for node in alive]
    return Capacity(
        cpus=max(1, int(sum(total.get("CPU", 0) for total in totals))),
        gpus=sum(total.get("GPU", 0) for total in totals),
        memory=sum(total.get("memory", 0) for total in totals),
        object_store=sum(total.get("object_store_memory", 0) for total in totals),
        hosts=tuple(
            Host(
                node["NodeID"],
                int(node["Resources"].get("CPU", 0)),
                node["Resources"].get("GPU", 0),
                node["Resources"].get("memory", 0),
                node["Resources"],
                node["Labels"],
            )
            for node in sorted(alive, key=lambda node: str(node["NodeID"]))
        ),
    )


@ray.remote(num_cpus=1, max_retries=0)
def _do_nothing() -> None:
    pass


def await_core(seconds: float, placement: Placement = ANYWHERE) -> None:
    """Wait until a task of one core can run: other jobs may hold all cores, and Ray queues without limit.

    An autoscaler starts a node for the task.

    Raises:
        NoCapacity: none could within `seconds`; nothing is written yet.
    """
    task = _do_nothing.options(**placement.build_options()).remote()
    start = monotonic()
    while not ray.wait([task], timeout=max(0.1, min(LOG_EVERY, start + seconds - monotonic())))[0]:
        has_free_core = ray.available_resources().get("CPU", 0.0) >= 1  # type: ignore[no-untyped-call]
        need = placement.build_need(CPU=1.0)
        awaited = "a worker to start" if has_free_core else f"{need}, which other jobs hold"
        lack = describe_missing(need) or awaited
        if monotonic() - start >= seconds:
            ray.cancel(task)
            raise NoCapacity(
                f"for {seconds:.0f} s no task could start: waiting for {lack}; "
                "run again when the cluster has it"
            )
        log.info("waiting for %s", lack)


def await_any(
    tasks: Sequence[ray.ObjectRef[Any]],
    seconds: float,
    placement: Placement = ANYWHERE,
    *,
    gpus: float = 0.0,
) -> list[ray.ObjectRef[Any]]:
    """Wait until one of some tasks has ended: while living nodes can hold one, without limit.

    Args:
        tasks: of a core and `gpus` each.
        seconds: how long to wait while no node can hold one.
        placement: which nodes may.
        gpus: of each task.

    Returns:
        The tasks that have ended.

    Raises:
        NoCapacity: for `seconds` no living node could hold such a task.
    """
    need, seen = placement.build_need(CPU=1.0, GPU=gpus), monotonic()
    while True:
        timeout = min(CAPACITY_EVERY, seconds)
        ended, _ = ray.wait(list(tasks), timeout=timeout, fetch_local=False)
        if ended:
            return list(ended)
        lack = describe_missing(need)
        if lack is None:
            seen = monotonic()
        elif monotonic() - seen > seconds:
            raise NoCapacity(
                f"for {seconds:.0f} s the cluster has lacked {lack}; run again when it has such a node"
            )


def check_needs(needs: Sequence[Need], seconds: float, *, may_grow: bool) -> None:
    """Name what no living node has of a run's needs: a log line, or an error if no node can join.

    Args:
        needs: of each kind of task and actor.
        seconds: how long the run will wait for such nodes.
        may_grow: whether nodes may join; a Ray that this process started stays one node.

    Raises:
        NoCapacity: the run would wait in vain.
    """
    for need in needs:
        lack = describe_missing(need)
        if lack is not None and not may_grow:
            raise NoCapacity(
                f"this machine lacks {lack}, and no other can join the Ray of this job"
            )
        if lack is not None:
            log.info("waiting up to %.0f s for %s", seconds, lack)


def describe_missing(need: Need) -> str | None:
    """What no living node has of a task's or actor's need, in words; None if one node has all of it."""
    return need.find_shortage(
        [(node["Resources"], node["Labels"]) for node in _list_nodes() if node["Alive"]]
    )
