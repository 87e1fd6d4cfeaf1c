"""Counts detector actors that die one after the other: at some number it is the detector's fault."""

from __future__ import annotations

from pipeline.engine.shards.retry_policy import classify_error
from pipeline.errors import ShardFailed

MAX_LOSSES_IN_A_ROW = 20
"""Actors that may die at whole shards with no piece done in between: more is the detector's fault."""
MAX_SINGLE_LOSSES_IN_A_ROW = 200
"""The same at single images, which are isolated because they end actors: each takes two."""


class ActorLosses:
    """Losses since a piece was last done."""

    def __init__(self) -> None:
        self._of_shards = self._of_images = 0

    def note_success(self) -> None:
        """Note that an actor has done a piece."""
        self._of_shards = self._of_images = 0

    def add(self, error: Exception, *, is_whole: bool) -> None:
        """Count an actor that died; the loss of its node is not its fault.

        Args:
            error: what Ray raised.
            is_whole: whether the actor was working on a whole shard, not on a single image.

        Raises:
            ShardFailed: too many actors died with no piece done in between.
        """
        if not classify_error(error).lost_worker:
            return
        if is_whole:
            self._of_shards += 1
        else:
            self._of_images += 1
        if self._of_shards > MAX_LOSSES_IN_A_ROW or self._of_images > MAX_SINGLE_LOSSES_IN_A_ROW:
            raise ShardFailed(
                f"{self._of_shards + self._of_images} detector actors died one after the other, the last: "
                f"{str(error).splitlines()[0]}"
            )
