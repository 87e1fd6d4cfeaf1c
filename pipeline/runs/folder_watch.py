"""Whether the objects of an output change: the only sign of a living driver that needs no host's clock."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from pipeline import storage, uris
from pipeline.runs.log_writer import PUT_EVERY

LOOKS = 5
"""Listings in the time of a watch, beside the first."""
LONGEST_SILENCE = 2 * PUT_EVERY
"""A living driver puts its logs more often than once in so many seconds, also if nothing happens."""


FOLDERS = ("", "logs", "steps", "matches", "parts")
"""The folders of an output in which a job writes while it works."""


def list_state(output: str) -> dict[str, int]:
    """The objects of an output, each with its size.

    Raises:
        StorageError: the store cannot be reached.
    """
    state = {}
    for folder in FOLDERS:
        uri = uris.join(output, folder) if folder else output
        for name, size in storage.list_sizes(uri).items():
            state[f"{folder}/{name}" if folder else name] = size
    return state


def watch_changes(
    output: str,
    seconds: float,
    *,
    clock: Callable[[], float] = monotonic,
    wait: Callable[[float], None] = sleep,
) -> tuple[frozenset[str], float]:
    """Watch an output until an object appears, grows, shrinks or goes, at most for `seconds`.

    A shard may take longer than that, and so may a step of a training between two states. So a change shows
    that a driver or one of its workers is alive, while no change shows nothing, unless the output has logs:
    a living driver puts these at least once in `LONGEST_SILENCE` seconds.

    Returns:
        The names of the objects that changed, and the seconds that it watched.

    Raises:
        StorageError: the store cannot be reached.
    """
    began = clock()
    before = list_state(output)
    while (left := seconds - (clock() - began)) > 0:
        wait(min(left, seconds / LOOKS))
        after = list_state(output)
        changed = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
        if changed:
            return frozenset(changed), clock() - began
    return frozenset(), clock() - began


def describe_activity(changed: frozenset[str], seconds: float, *, has_logs: bool) -> str:
    """What a watch shows about the driver, in words."""
    if changed:
        first = min(changed)
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"at work: {first}{others} changed while this watched for {seconds:.1f} s"
    if not has_logs:
        return (
            f"cannot tell: nothing changed in {seconds:.1f} s, but a shard or step may take longer"
        )
    if seconds < LONGEST_SILENCE:
        return (
            f"cannot tell: nothing changed in {seconds:.1f} s; a driver puts its logs every "
            f"{PUT_EVERY:.0f} s, so --watch {LONGEST_SILENCE:.0f} can tell"
        )
    return (
        f"not at work, or cut off from the store: nothing changed in {seconds:.1f} s, while a driver puts "
        f"its logs every {PUT_EVERY:.0f} s"
    )
