"""Where the steps of a reduction are done: here, one after the other, or elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

Handle = Any
"""Stands for the outcome of a call: the value itself, or what an executor exchanges for it."""


class Executor(Protocol):
    """Does calls of plain functions; `engine.analyze` has one that does them as Ray tasks."""

    def submit(
        self, function: Callable[..., Any], *arguments: Any, returns: int = 1
    ) -> list[Handle]:
        """Do a call, perhaps later and elsewhere.

        Args:
            function: a function of a module, without side effects.
            *arguments: its arguments; a handle stands for its value.
            returns: how many values the function returns, as a sequence; one value is returned as it is.

        Returns:
            A handle for each value.
        """

    def collect(self, handles: Sequence[Handle]) -> list[Any]:
        """Return the values of handles, once they are there; the caller may change them."""

    def share(self, value: Any) -> Handle:
        """Return a handle of a value that many calls take as an argument."""

    def reduce(
        self,
        function: Callable[..., Any],
        calls: Iterable[Sequence[Any]],
        merge: Callable[[Any, Any], Any],
    ) -> Any:
        """Do calls and merge their values into one, in any order, so that few values exist at a time.

        Args:
            function: as for `submit`.
            calls: the arguments of each call, of at least one; handles stand for values.
            merge: returns what two values are together, and may change the first.

        Returns:
            The one value, which the caller must not change.
        """

    def count_cores(self) -> int:
        """Return how many calls are done at the same time."""


class InProcess:
    """Does each call at once."""

    def submit(
        self, function: Callable[..., Any], *arguments: Any, returns: int = 1
    ) -> list[Handle]:
        """Do a call and return its values."""
        values = function(*arguments)
        return [values] if returns == 1 else list(values)

    def collect(self, handles: Sequence[Handle]) -> list[Any]:
        """Return the handles: they are the values."""
        return list(handles)

    def share(self, value: Any) -> Handle:
        """Return the value."""
        return value

    def reduce(
        self,
        function: Callable[..., Any],
        calls: Iterable[Sequence[Any]],
        merge: Callable[[Any, Any], Any],
    ) -> Any:
        """Merge the value of each call into those before it."""
        handles = (self.submit(function, *arguments)[0] for arguments in calls)
        return functools.reduce(merge, handles)

    def count_cores(self) -> int:
        """Return 1."""
        return 1
