"""The retry policy as a table: which causes in a row lead to which decisions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.retry_policy import (
    ENDED_WORKERS,
    NODE_LOSSES,
    Cause,
    Decision,
    EndRun,
    FailImage,
    GiveUp,
    Isolate,
    NoActorLeft,
    Retry,
    RetryPolicy,
    classify_error,
    unwrap_error,
)
from pipeline.errors import MismatchedProposals, ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, Backoff
from pipeline.runs.report import Failure
from pipeline.shards import Shard

SHARD = Piece(Shard(0, "0" * 24, 0, 4))
IMAGE = Piece(SHARD.shard, row=2)

CRASH = WorkerCrashedError()
ACTOR_DIED = ActorDiedError()
MEMORY = OutOfMemoryError("low on memory")
NODE = NodeDiedError("the node is gone")
UNAVAILABLE = ActorUnavailableError("socket closed", None)
STORE = StorageError("no answer")
DEFECT = ZeroDivisionError("division by zero")
REASON = "StorageError: no answer"
WORKER_DIED = FailImage(Failure("detect", "WorkerDied", ENDED_WORKERS))
OUT_OF_MEMORY = FailImage(Failure("detect", "OutOfMemory", ENDED_WORKERS))


def _decide(
    policy: RetryPolicy,
    piece: Piece,
    errors: Sequence[BaseException],
    *,
    was_at_work: bool = True,
    now: float = 100.0,
) -> list[Decision]:
    return [
        policy.after(piece, error, stage="detect", was_at_work=was_at_work, now=now)
        for error in errors
    ]


@pytest.mark.parametrize(
    ("piece", "errors", "decisions"),
    [
        pytest.param(SHARD, [CRASH] * 2, [Retry(), Isolate()], id="shard crashes twice"),
        pytest.param(SHARD, [ACTOR_DIED, CRASH], [Retry(), Isolate()], id="shard ends an actor"),
        pytest.param(SHARD, [MEMORY] * 2, [Retry(2.0), Isolate()], id="shard takes memory twice"),
        pytest.param(IMAGE, [CRASH] * 2, [Retry(), WORKER_DIED], id="image crashes twice"),
        pytest.param(
            IMAGE,
            [MEMORY] * 4,
            [Retry(2.0), Retry(8.0), Retry(32.0), OUT_OF_MEMORY],
            id="image takes memory four times",
        ),
        pytest.param(
            IMAGE, [MEMORY, MEMORY, CRASH], [Retry(2.0), Retry(8.0), WORKER_DIED], id="mixed losses"
        ),
        pytest.param(
            SHARD,
            [STORE] * ATTEMPTS,
            [Retry(0.5), Retry(2.0), Retry(8.0), Retry(30.0), Retry(30.0), GiveUp(REASON)],
            id="shard's store is away",
        ),
        pytest.param(
            IMAGE,
            [STORE] * ATTEMPTS,
            [Retry(0.5), Retry(2.0), Retry(8.0), Retry(30.0), Retry(30.0), GiveUp(REASON)],
            id="image's store is away and no other piece succeeds",
        ),
        pytest.param(
            SHARD,
            [STORE, CRASH, STORE, CRASH],
            [Retry(0.5), Retry(), Retry(2.0), Isolate()],
            id="errors and losses are counted apart",
        ),
        pytest.param(
            SHARD,
            [NODE, UNAVAILABLE, NoActorLeft("none"), CRASH],
            [Retry(), Retry(), Retry(), Retry()],
            id="a lost node says nothing about the shard",
        ),
        pytest.param(
            SHARD,
            [NODE] * (NODE_LOSSES + 1),
            [*[Retry()] * NODE_LOSSES, Retry(0.5)],
            id="even nodes are not lost for ever",
        ),
    ],
)
def test_decisions(
    piece: Piece, errors: Sequence[BaseException], decisions: Sequence[Decision]
) -> None:
    assert _decide(RetryPolicy(), piece, errors) == decisions


def test_wrong_input_ends_the_run_at_once() -> None:
    error = MismatchedProposals("row 0 is 'b' there and 'a' here")
    assert _decide(RetryPolicy(), SHARD, [error]) == [EndRun(error)]


def test_a_piece_that_only_waited_for_the_lost_worker_is_not_to_blame() -> None:
    policy = RetryPolicy()
    assert _decide(policy, SHARD, [CRASH] * 5, was_at_work=False) == [Retry()] * 5
    assert _decide(policy, SHARD, [CRASH, CRASH]) == [Retry(), Isolate()]


@pytest.mark.parametrize(
    ("piece", "success_started_at", "decision"),
    [
        (IMAGE, 101.0, FailImage(Failure("detect", "StorageError", "no answer"))),
        (IMAGE, 99.0, GiveUp(REASON)),  # it started before the store went away
        (SHARD, 101.0, Isolate()),
        (SHARD, 99.0, GiveUp(REASON)),
    ],
)
def test_an_image_is_failed_if_pieces_that_started_later_succeed(
    piece: Piece, success_started_at: float, decision: Decision
) -> None:
    policy = RetryPolicy()
    _decide(policy, piece, [STORE], now=100.0)
    policy.note_success("detect", success_started_at)
    assert _decide(policy, piece, [STORE] * (ATTEMPTS - 1), now=200.0)[-1] == decision


@pytest.mark.parametrize("piece", [SHARD, IMAGE])
@pytest.mark.parametrize("error", [ObjectStoreFullError(), OutOfDiskError()])
def test_a_full_object_store_fails_no_image(piece: Piece, error: Exception) -> None:
    policy = RetryPolicy()
    decisions = _decide(policy, piece, [error] * (ATTEMPTS - 1))
    policy.note_success("detect", started_at=200.0)
    decisions += _decide(policy, piece, [error])
    assert all(isinstance(decision, Retry) for decision in decisions[:-1])
    assert isinstance(decisions[-1], GiveUp)
    assert "object store is full" in decisions[-1].reason


def test_success_at_another_stage_fails_no_image() -> None:
    """Images may be readable while no detector works."""
    policy = RetryPolicy()
    _decide(policy, SHARD, [STORE], now=100.0)
    policy.note_success("read", 101.0)
    assert _decide(policy, SHARD, [STORE] * (ATTEMPTS - 1))[-1] == GiveUp(REASON)


def _isolate(policy: RetryPolicy) -> None:
    _decide(policy, SHARD, [STORE], now=100.0)
    policy.note_success("detect", 101.0)
    assert _decide(policy, SHARD, [STORE] * (ATTEMPTS - 1))[-1] == Isolate()


def test_a_passing_error_does_not_fail_an_image_of_a_shard_without_attempts_left() -> None:
    policy = RetryPolicy()
    _isolate(policy)
    assert not policy.is_last_chance(IMAGE)
    assert _decide(policy, IMAGE, [STORE] * 2, now=102.0) == [Retry(0.5), Retry(2.0)]
    assert policy.is_last_chance(IMAGE)
    failed = FailImage(Failure("detect", "StorageError", "no answer"))
    assert _decide(policy, IMAGE, [STORE], now=103.0) == [failed]


def test_an_error_of_the_code_fails_an_image_of_a_shard_without_attempts_left() -> None:
    policy = RetryPolicy()
    _isolate(policy)
    failed = FailImage(Failure("detect", "ZeroDivisionError", "division by zero"))
    assert _decide(policy, IMAGE, [DEFECT], now=102.0) == [failed]


def test_an_error_of_the_code_is_retried_once_while_nothing_succeeds() -> None:
    policy = RetryPolicy()
    assert not policy.is_last_chance(SHARD)
    assert _decide(policy, SHARD, [DEFECT]) == [Retry(0.5)]
    assert policy.is_last_chance(SHARD)
    assert _decide(policy, SHARD, [DEFECT]) == [GiveUp("ZeroDivisionError: division by zero")]
    policy.note_success("detect", 1.0)
    other = Piece(Shard(1, "1" * 24, 4, 4))
    assert [type(d) for d in _decide(policy, other, [DEFECT] * 5)] == [Retry] * 5


def test_an_error_of_the_code_after_one_of_the_store_is_retried_too() -> None:
    """Before a shard is given up, its images must have had their last chance to fail alone."""
    policy = RetryPolicy()
    decisions = _decide(policy, SHARD, [STORE, DEFECT])
    assert [type(decision) for decision in decisions] == [Retry, Retry]
    assert policy.is_last_chance(SHARD)
    assert _decide(policy, SHARD, [DEFECT]) == [GiveUp("ZeroDivisionError: division by zero")]


@pytest.mark.parametrize("error", [STORE, OSError("no space left on device"), MemoryError()])
def test_what_may_pass_by_itself_keeps_its_attempts(error: Exception) -> None:
    assert [type(d) for d in _decide(RetryPolicy(), SHARD, [error] * 5)] == [Retry] * 5


def test_the_last_chance_is_the_attempt_before_the_shard_is_given_up() -> None:
    policy = RetryPolicy()
    chances = []
    for _ in range(ATTEMPTS):
        chances.append(policy.is_last_chance(SHARD))
        _decide(policy, SHARD, [STORE])
    assert chances == [False] * (ATTEMPTS - 1) + [True]


def _give_up(policy: RetryPolicy, ordinal: int) -> Decision:
    piece = Piece(Shard(ordinal, "0" * 24, 4 * ordinal, 4))
    return _decide(policy, piece, [STORE] * ATTEMPTS)[-1]


def test_three_shards_given_up_in_a_row_end_the_run() -> None:
    policy = RetryPolicy()
    assert [_give_up(policy, ordinal) for ordinal in (1, 2)] == [GiveUp(REASON)] * 2
    policy.note_commit()
    assert [_give_up(policy, ordinal) for ordinal in (3, 4)] == [GiveUp(REASON)] * 2
    last = _give_up(policy, 5)
    assert isinstance(last, EndRun)
    assert isinstance(last.error, ShardFailed)
    assert str(last.error).startswith(f"3 shards failed one after the other: {REASON};")


def test_a_part_that_cannot_be_put_has_attempts_of_its_own() -> None:
    policy = RetryPolicy()
    _decide(policy, SHARD, [STORE] * (ATTEMPTS - 1))
    decisions = [policy.after_driver_error(SHARD, STORE) for _ in range(ATTEMPTS)]
    waits = [Retry(wait) for wait in (0.5, 2.0, 8.0, 30.0, 30.0)]
    assert decisions == [*waits, GiveUp("no answer")]


def test_each_step_of_the_driver_has_attempts_of_its_own() -> None:
    policy = RetryPolicy()
    images = [Piece(SHARD.shard, row) for row in range(4)]
    for piece in (*images, SHARD):
        decisions = [policy.after_driver_error(piece, STORE) for _ in range(ATTEMPTS - 1)]
        assert [type(decision) for decision in decisions] == [Retry] * (ATTEMPTS - 1)
    assert policy.after_driver_error(images[1], STORE) == GiveUp("no answer")


def test_the_log_names_shard_image_stage_and_attempt() -> None:
    policy = RetryPolicy()
    (crash, memory), (store,) = (
        _decide(policy, IMAGE, [CRASH, MEMORY]),
        _decide(policy, SHARD, [STORE]),
    )
    assert crash.message == "shard 0, image 2 ended its worker at stage detect (1 of 2)"
    assert memory.message == "shard 0, image 2 ended its worker at stage detect (2 of 4)"
    assert store.message == "shard 0, attempt 1: StorageError: no answer"
    (node,) = _decide(policy, SHARD, [NODE])
    assert not node.message


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NODE, Cause.NODE_LOST),
        (UNAVAILABLE, Cause.NODE_LOST),
        (NoActorLeft("none"), Cause.NODE_LOST),
        (ObjectLostError("0" * 56, "", ""), Cause.NODE_LOST),
        (RaySystemError("its node has died"), Cause.NODE_LOST),
        (CRASH, Cause.WORKER_ENDED),
        (ACTOR_DIED, Cause.WORKER_ENDED),
        (MEMORY, Cause.OUT_OF_MEMORY),
        (STORE, Cause.ERROR),
        (DEFECT, Cause.ERROR),
        (MismatchedProposals("row 0"), Cause.WRONG_INPUT),
    ],
)
def test_classified_errors(error: BaseException, cause: Cause) -> None:
    assert classify_error(error) is cause


def test_an_error_of_the_tasks_code_is_unwrapped() -> None:
    wrapped = RayTaskError("propose", "Traceback", STORE)
    assert unwrap_error(wrapped) is STORE
    assert unwrap_error(CRASH) is CRASH


def test_a_backoff_grows_up_to_its_longest_wait() -> None:
    backoff = Backoff(first=1.0, factor=3.0, longest=20.0)
    assert [backoff.wait(attempt) for attempt in (1, 2, 3, 4)] == [1.0, 3.0, 9.0, 20.0]
    assert Backoff(first=0.0).wait(5) == 0.0


def test_a_shard_that_is_never_done_image_by_image_is_given_up() -> None:
    policy = RetryPolicy(isolates=False)
    decisions = _decide(policy, SHARD, [CRASH] * 2)
    assert decisions == [Retry(), GiveUp("it ended 2 workers: a crash or too much memory")]
    policy = RetryPolicy(isolates=False)
    policy.note_success("detect", started_at=101.0)  # others come through: it is not the store
    assert _decide(policy, SHARD, [STORE] * ATTEMPTS)[-1] == GiveUp(REASON)
