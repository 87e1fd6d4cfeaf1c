"""Whose fault an error is: an image's own, or that of its store or node."""

from __future__ import annotations

from pipeline.runs.report import Failure


class PieceFaults:
    """Decides, for the images of one piece, whether an error fails an image or the whole attempt.

    While the piece has another chance, only an image's own errors fail it, and any other error raises. On
    the last chance any error fails its image, unless no other image came through the same stage: one image
    whose store is gone for good must not keep the others from being committed.
    """

    def __init__(self, *, is_last_chance: bool = False) -> None:
        self._is_last_chance = is_last_chance
        self._succeeded: set[str] = set()
        self._first_errors: dict[str, Exception] = {}

    def note_success(self, stage: str) -> None:
        """Note that an image came through a stage."""
        self._succeeded.add(stage)

    def fail_or_raise(self, stage: str, error: Exception) -> Failure:
        """The failure of an image on the last chance; before that, raise `error`."""
        if not self._is_last_chance:
            raise error
        self._first_errors.setdefault(stage, error)
        return Failure.from_error(stage, error)

    def check(self) -> None:
        """Raise the first error of a stage that no image came through; called after the last image."""
        for stage, error in self._first_errors.items():
            if stage not in self._succeeded:
                raise error
