"""What an error of Ray's says about a piece of work: its node is gone, its worker is gone, or neither."""

from __future__ import annotations

from ray import exceptions as rx


class NoActorLeft(rx.RayError):
    """All actors that could take a piece are gone, and with them what was done for it."""


def died_with_node(cause: BaseException) -> bool:
    """Whether a node was lost, or may have been: no fault of the piece that was at work there.

    An actor is *unavailable* when its connection broke and nobody knows yet why: what Ray says in the
    first second after a node's death. A worker that an image ended is reported by its raylet as dead.
    """
    lost = (
        NoActorLeft,
        rx.NodeDiedError,
        rx.ActorUnavailableError,
        rx.ActorUnschedulableError,
        rx.TaskUnschedulableError,
        rx.ObjectLostError,
        rx.LocalRayletDiedError,
    )
    return isinstance(cause, lost) or "node has died" in str(cause)


def ended_worker(cause: BaseException) -> bool:
    """Whether the worker process is gone: crashed, killed by the watchdog, or for its memory."""
    return isinstance(cause, rx.WorkerCrashedError | rx.OutOfMemoryError | rx.RayActorError)
