"""File names in annotations, found among the files that exist, however either side writes them."""

from __future__ import annotations

import posixpath
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Mapping

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.sources.listing import Listing

_MOST_LINKS = 40
"""Links in one path, as Linux allows."""


def check_inside(path: str, where: str) -> str:
    """The path with `/` between its parts and without `.` and `..`.

    Raises:
        UnreadableDataset: the path is absolute, a URI, or leads out of the folder it is relative to.
    """
    plain = path.replace("\\", "/")
    has_drive = len(plain) > 1 and plain[1] == ":" and plain[0].isalpha() and plain[2:3] != ":"
    cleaned = posixpath.normpath(plain)
    is_outside = cleaned in (".", "..") or cleaned.startswith(("/", "../"))
    if has_drive or is_outside or "://" in plain:
        shown = uris.redact_text(path)
        raise UnreadableDataset(f"{where} names {shown!r}, which leaves the dataset's folder")
    return cleaned


def normalise(path: str) -> str:
    """The path in composed Unicode (NFC), with its ending in lower case and `/` between its parts."""
    stem, ending = posixpath.splitext(posixpath.normpath(path.replace("\\", "/")))
    return unicodedata.normalize("NFC", stem) + ending.lower()


class FileNames:
    """The files below a folder, by exact or else by normalised name."""

    def __init__(self, listing: Listing) -> None:
        """Look up among the listing's files."""
        self._files = frozenset(listing.files)
        self._links = listing.links
        self._lock = threading.Lock()
        self._by_normalised: dict[str, list[str]] | None = None

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def find(self, path: str, where: str = "the annotation") -> str | None:
        """The path of the file as it is stored, or None if there is none.

        Args:
            path: relative to the folder, as an annotation writes it.
            where: the file that errors name.

        Raises:
            UnreadableDataset: the path differs from several files by no more than its spelling.
        """
        if path in self._files:
            return path
        resolved = _follow_links(posixpath.normpath(path.replace("\\", "/")), self._links)
        if resolved in self._files:
            return resolved
        similar = self._index().get(normalise(resolved), [])
        if len(similar) > 1:
            raise UnreadableDataset(
                f"{where} names {path!r}, which may be any of {', '.join(map(repr, similar))}"
            )
        return similar[0] if similar else None

    def _index(self) -> Mapping[str, list[str]]:
        """Built at the first name that is not exact: most datasets need none."""
        with self._lock:
            if self._by_normalised is None:
                index: dict[str, list[str]] = defaultdict(list)
                for path in sorted(self._files):
                    index[normalise(path)].append(path)
                self._by_normalised = dict(index)
            return self._by_normalised


def _follow_links(path: str, links: Mapping[str, str]) -> str:
    """The path with each linked folder replaced by the one that is listed."""
    for _ in range(_MOST_LINKS if links else 0):
        parts = path.split("/")
        prefixes = ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
        link = next((prefix for prefix in prefixes if prefix in links), None)
        if link is None:
            break
        path = posixpath.join(links[link], path[len(link) + 1 :])
    return path
