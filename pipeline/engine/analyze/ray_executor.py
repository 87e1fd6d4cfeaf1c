"""Steps of a reduction as Ray tasks: what they return stays in the object stores until it is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline import store_options
from pipeline.analysis.executor import Handle
from pipeline.errors import PipelineError, ShardFailed

RETRIES = 3
"""How often Ray redoes a task whose worker or node is lost. Unlike work on images, these tasks are functions
of committed parts, and nothing needs to be found out from a loss."""


class RayExecutor:
    """Does each call as a task of one core."""

    def __init__(self) -> None:
        self._stores = ray.put(store_options.get_options())

    def submit(
        self, function: Callable[..., Any], *arguments: Any, returns: int = 1
    ) -> list[Handle]:
        """Start a task; its handles are references."""
        options = _call.options(num_returns=returns)
        references = options.remote(self._stores, function, *arguments)
        return [references] if returns == 1 else list(references)

    def collect(self, handles: Sequence[Handle]) -> list[Any]:
        """Wait for values and return copies of them, since Ray's own arrays cannot be changed.

        Raises:
            PipelineError: what a task raised.
            ShardFailed: workers or nodes were lost too often.
        """
        try:
            return [copy.deepcopy(value) for value in ray.get(list(handles))]
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

    def share(self, value: Any) -> Handle:
        """Put a value into the object store once."""
        return ray.put(value)


@ray.remote(num_cpus=1, max_retries=RETRIES)
def _call(stores: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    store_options.set_options(stores)
    return function(*arguments)
