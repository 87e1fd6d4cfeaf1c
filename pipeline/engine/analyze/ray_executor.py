"""Steps of a reduction as Ray tasks: what they return stays in the object stores until it is needed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import store_options
from pipeline.analysis.executor import Handle
from pipeline.engine import cluster
from pipeline.errors import PipelineError, ShardFailed
from pipeline.runs.placement import ANYWHERE, Placement

RETRIES = 3
"""How often Ray redoes a task whose worker or node is lost. Unlike work on images, these tasks are functions
of committed parts, and nothing needs to be found out from a loss."""

CALLS_PER_CORE = 2
"""Calls of a reduction at a time: one at work, one waiting."""
MERGED_TOGETHER = 8
"""Values that one task merges."""


class RayExecutor:
    """Does each call as a task of one core."""

    def __init__(self, placement: Placement = ANYWHERE, no_capacity_after: float = 300.0) -> None:
        """Start tasks on the nodes that the placement allows, and wait so many seconds for such nodes."""
        self._placement = placement
        self._no_capacity_after = no_capacity_after
        self._stores = ray.put(store_options.get_options())

    def submit(
        self, function: Callable[..., Any], *arguments: Any, returns: int = 1
    ) -> list[Handle]:
        """Start a task; its handles are references."""
        options = _call.options(num_returns=returns, **self._placement.build_options())
        references = options.remote(self._stores, function, *arguments)
        return [references] if returns == 1 else list(references)

    def collect(self, handles: Sequence[Handle]) -> list[Any]:
        """Wait for values and return copies of them, since Ray's own arrays cannot be changed.

        Raises:
            PipelineError: what a task raised.
            ShardFailed: workers or nodes were lost too often.
            NoCapacity: no node could hold a task for too long.
        """
        return [copy.deepcopy(value) for value in self._get(handles)]

    def _get(self, handles: Sequence[Handle]) -> list[Any]:
        for handle in handles:
            self._await_any([handle])
        try:
            return list(ray.get(list(handles)))
        except RayTaskError as error:
            if isinstance(error.cause, PipelineError):
                raise error.cause from error
            raise
        except RayError as error:
            text = " ".join(str(error).split())
            raise ShardFailed(
                f"the metrics could not be computed: {text:.300}; the matches are committed, a rerun "
                "does the rest"
            ) from error

    def _await_any(self, handles: list[Handle]) -> list[Handle]:
        return cluster.await_any(handles, self._no_capacity_after, self._placement)

    def share(self, value: Any) -> Handle:
        """Put a value into the object store once."""
        return ray.put(value)

    def reduce(
        self,
        function: Callable[..., Any],
        calls: Iterable[Sequence[Any]],
        merge: Callable[[Any, Any], Any],
    ) -> Any:
        """Keep two calls per core at work, and merge what they return in tasks, eight values at a time.

        Raises:
            PipelineError: what a task raised.
            ShardFailed: workers or nodes were lost too often.
            NoCapacity: no node could hold a task for too long.
        """
        waiting = iter(calls)
        at_work: dict[Handle, Handle] = {}
        """The value of each call by what says that it is done."""
        ready: list[Handle] = []
        while True:
            room = CALLS_PER_CORE * self.count_cores() - len(at_work)
            started = [(function, *arguments) for arguments in islice(waiting, max(room, 0))]
            if len(ready) >= MERGED_TOGETHER or (len(ready) > 1 and not at_work):
                started.append((_merge, merge, *ready[:MERGED_TOGETHER]))
                ready = ready[MERGED_TOGETHER:]
            for call in started:
                value, is_done = self.submit(_call_and_say, *call, returns=2)
                at_work[is_done] = value
            del started
            if not at_work:
                return self._get(ready)[0]
            ended = self._await_any(list(at_work))
            self._get(ended)  # raises what a call raised
            ready += [at_work.pop(is_done) for is_done in ended]

    def count_cores(self) -> int:
        """Return the cores of the living nodes that may run tasks, at least 1."""
        return max(1, int(cluster.get_capacity().count_tasks(self._placement)))


@ray.remote(num_cpus=1, max_retries=RETRIES)
def _call(stores: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    store_options.set_options(stores)
    return function(*arguments)


def _call_and_say(function: Callable[..., Any], *arguments: Any) -> tuple[Any, bool]:
    """The value, which may be large and stays where it is, and that it is there."""
    return function(*arguments), True


def _merge(merge: Callable[[Any, Any], Any], first: Any, *others: Any) -> Any:
    own = copy.deepcopy(first)  # Ray's arrays cannot be changed
    return functools.reduce(merge, others, own)
