"""What follows when work on a piece ends in an error: retry, isolate, fail the image, or give up.

Pure decisions: nothing here calls Ray, reads a clock or touches storage. The runner carries them out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto

from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

from pipeline.engine.shards.piece import Piece
from pipeline.errors import PipelineError, ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.report import Failure
from pipeline.shards import Shard

WORKER_LOSSES = 2
"""Workers that a shard, and then a single image, may end."""
MEMORY_LOSSES = 4
"""Workers that Ray may end for their node's memory at a single image: another process may use the memory."""
NODE_LOSSES = 50
"""Attempts that may be lost with a node: they say nothing about the shard."""
SAME_ERRORS = 2
"""Attempts at work whose code raises an error before anything has succeeded in the run: most likely it is the
same for every image, and waiting does not help as it does with a store."""
ISOLATED_ATTEMPTS = 3
"""Attempts at an image whose shard has none left: one passing error of a store must not fail it."""
GIVE_UPS_IN_A_ROW = 3
"""Shards that may be given up without a commit between: then the fault is not theirs."""
ENDED_WORKERS = (
    "this image alone ended its workers again and again: a crash, too much memory or time"
)


class NoActorLeft(RayError):
    """All actors that could take a piece are gone, and the work done for it with them."""


class Cause(Enum):
    """What an error says about a piece of work."""

    NODE_LOST = auto()
    """A node was lost, or may have been: not the fault of the piece at work there."""
    WORKER_ENDED = auto()
    """The worker process crashed, or the watchdog ended it."""
    OUT_OF_MEMORY = auto()
    """Ray ended the worker for its node's memory."""
    WRONG_INPUT = auto()
    """No retry can help."""
    ERROR = auto()
    """The work raised an error that may pass, such as a store that does not answer."""

    @property
    def lost_worker(self) -> bool:
        """Whether the worker process is gone, but its node is not."""
        return self in (Cause.WORKER_ENDED, Cause.OUT_OF_MEMORY)

    @property
    def lost_attempt(self) -> bool:
        """Whether the attempt vanished with its process: it may have committed before."""
        return self.lost_worker or self is Cause.NODE_LOST


def classify_error(error: BaseException) -> Cause:
    """What an error says about the work that it ended.

    An actor is *unavailable* if its connection broke and nobody knows why yet: this is what Ray reports in
    the first second after a node's death. A worker that an image ended is reported as dead by its raylet.
    """
    node_errors = (
        NoActorLeft,
        NodeDiedError,
        ActorUnavailableError,
        ActorUnschedulableError,
        TaskUnschedulableError,
        ObjectLostError,
        LocalRayletDiedError,
    )
    if isinstance(error, PipelineError) and not isinstance(error, StorageError):
        return Cause.WRONG_INPUT
    if isinstance(error, node_errors) or "node has died" in str(error):
        return Cause.NODE_LOST
    if isinstance(error, OutOfMemoryError):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, WorkerCrashedError | RayActorError):
        return Cause.WORKER_ENDED
    return Cause.ERROR


def unwrap_error(error: BaseException) -> BaseException:
    """The error that the code of a task raised, or the error itself if Ray raised it."""
    return error.cause if isinstance(error, RayTaskError) else error


_FULL = (ObjectStoreFullError, OutOfDiskError)
"""Errors of a node that has no room for what tasks send to each other; no image is to blame."""


def _describe_error(error: BaseException) -> str:
    """The type of an error and the first line of what it says."""
    name = type(error).__name__
    if isinstance(error, _FULL):  # Ray's "Local disk is full" misleads
        return f"{name}: a node's object store is full, and its disk has no room to spill objects"
    return f"{name}: {error}".splitlines()[0]


@dataclass(frozen=True, kw_only=True)
class _Decision:
    message: str = field(default="", compare=False)
    """What the log says about the error; empty if it says nothing about the piece."""


@dataclass(frozen=True)
class Retry(_Decision):
    """Try the piece again after `wait` seconds."""

    wait: float = 0.0


@dataclass(frozen=True)
class Isolate(_Decision):
    """Do the shard one image per task."""


@dataclass(frozen=True)
class FailImage(_Decision):
    """Write a failed row for the image."""

    failure: Failure


@dataclass(frozen=True)
class GiveUp(_Decision):
    """Do the rest of the run without the shard."""

    reason: str


@dataclass(frozen=True)
class EndRun(_Decision):
    """End the run with this error."""

    error: BaseException


Decision = Retry | Isolate | FailImage | GiveUp | EndRun


class RetryPolicy:
    """Decides what follows when work on a piece ends in an error, and counts what that takes."""

    def __init__(self, backoff: Backoff = DEFAULT_BACKOFF, *, isolates: bool = True) -> None:
        """Prepare a policy.

        Args:
            backoff: waits between attempts.
            isolates: whether a shard that has no attempts left as a whole is done image by image.
        """
        self.backoff = backoff
        self._isolates = isolates
        self._errors: Counter[Piece] = Counter()
        self._first_error: dict[Piece, float] = {}
        self._worker_losses: Counter[Piece] = Counter()
        self._node_losses: Counter[Piece] = Counter()
        self._driver_errors: Counter[Piece] = Counter()
        self._latest_success: dict[str, float] = {}
        """When the latest piece that came through a stage had started, by stage."""
        self._code_errors: Counter[Piece] = Counter()
        """How many of a piece's errors are errors of the code."""
        self._code_error_stage: dict[Piece, str] = {}
        """Pieces whose latest error is one of the code, with its stage."""
        self._isolated: set[Shard] = set()
        """Shards that have no attempts left as a whole: their images are done one by one."""
        self._give_ups_in_a_row = 0

    def is_last_chance(self, piece: Piece) -> bool:
        """Whether the piece is not tried again after the next error of its work."""
        return self._errors[piece] >= self._count_attempts(piece) - 1

    def note_success(self, stage: str, started_at: float) -> None:
        """Note that a piece whose work started at that time came through a stage."""
        self._latest_success[stage] = max(self._latest_success.get(stage, started_at), started_at)

    def note_commit(self) -> None:
        """Note that a shard was committed."""
        self._give_ups_in_a_row = 0

    def after(
        self, piece: Piece, error: BaseException, *, stage: str, was_at_work: bool, now: float
    ) -> Decision:
        """Decide what follows an error that ended work on a piece.

        Args:
            piece: what the work was on.
            error: what Ray or the work raised, unwrapped.
            stage: where it happened.
            was_at_work: False if the piece only waited for the worker that was lost.
            now: the time in seconds, of the same clock as `note_success`.
        """
        cause = classify_error(error)
        if cause is Cause.WRONG_INPUT:
            return EndRun(error)
        if cause is Cause.NODE_LOST or not was_at_work:
            self._node_losses[piece] += 1
            if self._node_losses[piece] <= NODE_LOSSES:
                return Retry()
        elif cause.lost_worker:
            return self._after_worker_loss(piece, cause, stage)
        return self._after_error(piece, error, stage, now)

    def after_driver_error(self, piece: Piece, error: BaseException) -> Decision:
        """Decide what follows an error of the driver's own work: a part or a failed row cannot be written.

        Args:
            piece: the shard whose part is put, or the image whose row is built.
            error: what the store raised.
        """
        self._driver_errors[piece] += 1
        attempt = self._driver_errors[piece]
        what = "put it" if piece.is_whole else f"fail image {piece.row}"
        message = f"shard {piece.shard.ordinal}, attempt {attempt} to {what}: {error}"
        if attempt < ATTEMPTS:
            return Retry(self.backoff.wait(attempt), message=message)
        return self._give_up(str(error), message)

    def _after_error(self, piece: Piece, error: BaseException, stage: str, now: float) -> Decision:
        self._errors[piece] += 1
        self._first_error.setdefault(piece, now)
        self._code_error_stage.pop(piece, None)
        if not isinstance(error, PipelineError | RayError | OSError | MemoryError):
            self._code_errors[piece] += 1
            self._code_error_stage[piece] = stage
        attempt = self._errors[piece]
        reason = _describe_error(error)
        message = f"shard {piece.shard.ordinal}, attempt {attempt}: {reason}"
        if attempt < self._count_attempts(piece):
            return Retry(self.backoff.wait(attempt), message=message)
        may_be_image = self._isolates and not isinstance(error, _FULL)
        if not (may_be_image and self._have_others_succeeded(piece, stage)):
            return self._give_up(reason, message)
        if not piece.is_whole:
            return FailImage(Failure.from_error(stage, error), message=message)
        self._isolated.add(piece.shard)
        return Isolate(message=f"{message}; its images are done one by one")

    def _count_attempts(self, piece: Piece) -> int:
        """Errors after which a piece is not tried again."""
        stage = self._code_error_stage.get(piece)
        if not piece.is_whole and piece.shard in self._isolated:
            return ISOLATED_ATTEMPTS if stage is None else 1
        if stage is None or stage in self._latest_success:
            return ATTEMPTS
        passing_errors = self._errors[piece] - self._code_errors[piece]
        return min(ATTEMPTS, passing_errors + SAME_ERRORS)

    def _have_others_succeeded(self, piece: Piece, stage: str) -> bool:
        """Whether pieces that started after the first error came through the stage."""
        first = piece if piece.shard not in self._isolated else Piece(piece.shard)
        return self._latest_success.get(stage, float("-inf")) > self._first_error[first]

    def _after_worker_loss(self, piece: Piece, cause: Cause, stage: str) -> Decision:
        self._worker_losses[piece] += 1
        losses = self._worker_losses[piece]
        is_memory = cause is Cause.OUT_OF_MEMORY
        allowed = MEMORY_LOSSES if is_memory and not piece.is_whole else WORKER_LOSSES
        image = "" if piece.is_whole else f", image {piece.row}"
        message = (
            f"shard {piece.shard.ordinal}{image} ended its worker at stage {stage} "
            f"({losses} of {allowed})"
        )
        if losses < allowed:
            # Memory needs longer to become free than a store to answer.
            return Retry(4 * self.backoff.wait(losses) if is_memory else 0.0, message=message)
        if piece.is_whole and not self._isolates:
            return self._give_up(f"it ended {losses} workers: a crash or too much memory", message)
        if piece.is_whole:
            return Isolate(message=message)
        kind = "OutOfMemory" if is_memory else "WorkerDied"
        return FailImage(Failure(stage, kind, ENDED_WORKERS), message=message)

    def _give_up(self, reason: str, message: str) -> Decision:
        self._give_ups_in_a_row += 1
        if self._give_ups_in_a_row < GIVE_UPS_IN_A_ROW:
            return GiveUp(reason, message=message)
        error = ShardFailed(
            f"{self._give_ups_in_a_row} shards failed one after the other: {reason}; "
            "what was done is committed, a rerun does the rest"
        )
        return EndRun(error, message=message)
