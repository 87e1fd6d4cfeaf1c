"""Whose fault an error is: an image's own, or that of its store or node."""

from __future__ import annotations

from pipeline import uris
from pipeline.runs.report import Failure


class PieceFaults:
    """Decides, for the images of one piece, whether an error fails an image or the whole attempt.

    While the piece has another chance, only an image's own errors fail it, and any other error raises. On
    the last chance any error fails its image, unless no other image succeeded at the same place.
    """

    def __init__(self, *, is_last_chance: bool = False) -> None:
        self._is_last_chance = is_last_chance
        self._succeeded: set[str] = set()
        self._first_errors: dict[str, Exception] = {}

    def note_success(self, place: str) -> None:
        """Note that an image came through a place: a store, or a computation."""
        self._succeeded.add(place)

    def fail_or_raise(self, stage: str, place: str, error: Exception) -> Failure:
        """The failure of an image on the last chance; before that, raise `error`."""
        if not self._is_last_chance:
            raise error
        self._first_errors.setdefault(place, error)
        return Failure.from_error(stage, error)

    def check(self) -> None:
        """Raise the first error of a place where no image succeeded; called after the last image."""
        for place, error in self._first_errors.items():
            if place not in self._succeeded:
                raise error


def name_store(uri: str) -> str:
    """What fails as one: a bucket, the local disk, the web as a whole."""
    protocol = uris.get_protocol(uri)
    if protocol in ("file", "http", "https", "ftp", "sftp"):
        return protocol.removesuffix("s")
    return "/".join(uri.split("/")[:3])
