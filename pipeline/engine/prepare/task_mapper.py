"""Reads the files of a dataset in Ray tasks instead of threads of this process; results keep their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import store_options
from pipeline.engine import cluster
from pipeline.errors import PipelineError, ShardFailed
from pipeline.sources.dataset import Item, Result, map_in_threads

RETRIES = 3
"""How often Ray redoes a task whose worker or node is lost: reading changes nothing."""
TASKS_PER_CORE = 2
"""Tasks at a time: one at work, one waiting. It bounds the rows that wait in the object stores."""
MOST_TOGETHER = 64
"""Items of one task, which a pool of threads reads: enough to hide the latency of a store."""
_TASKS_IN_ALL = 8
"""Tasks per core that a dataset gives at least, so that all cores end at about the same time."""


def map_in_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    ahead: int = 0,
    *,
    no_capacity_after: float = 300.0,
) -> Iterator[Future[Result]]:
    """Call `function` on each item in tasks of a core; yield finished futures in order.

    Args:
        function: without side effects; it is sent to each worker once, so it must not hold the dataset.
        items: what is read; those of a task are sent to it.
        ahead: not needed here: the cores of the cluster decide.
        no_capacity_after: seconds to wait while no node has a core.

    Raises:
        ShardFailed: workers or nodes were lost too often.
        NoCapacity: for `no_capacity_after` seconds no node had a core.
    """
    del ahead
    cores, asked = cluster.get_capacity().cpus, monotonic()
    together = min(max(len(items) // (_TASKS_IN_ALL * cores), 1), MOST_TOGETHER)
    shared, stores = ray.put(function), ray.put(store_options.get_options())
    groups = (items[first : first + together] for first in range(0, len(items), together))
    pending: deque[Any] = deque()
    while True:
        if monotonic() - asked > cluster.CAPACITY_EVERY:
            cores, asked = cluster.get_capacity().cpus, monotonic()
        room = max(0, TASKS_PER_CORE * cores - len(pending))
        pending.extend(_read_group.remote(shared, stores, group) for group in islice(groups, room))
        if not pending:
            return
        cluster.await_any([pending[0]], no_capacity_after)
        outcomes = _get_outcomes(pending.popleft())
        for value, error in outcomes:
            future: Future[Any] = Future()
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
            yield future


def _get_outcomes(reference: Any) -> list[tuple[Any, Exception | None]]:
    try:
        outcomes: list[tuple[Any, Exception | None]] = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise error.cause from error
        raise
    except RayError as error:
        text = " ".join(str(error).split())
        raise ShardFailed(
            f"files of the dataset could not be read in Ray tasks: {text:.300}; no manifest was written"
        ) from error
    return outcomes


@ray.remote(num_cpus=1, max_retries=RETRIES)
def _read_group(
    function: Callable[[Any], Any], stores: Any, items: Sequence[Any]
) -> list[tuple[Any, Exception | None]]:
    """The value or error of each item."""
    store_options.set_options(stores)
    outcomes: list[tuple[Any, Exception | None]] = []
    for future in map_in_threads(function, items):
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error
        outcomes.append((None, error) if error is not None else (future.result(), None))
    return outcomes
