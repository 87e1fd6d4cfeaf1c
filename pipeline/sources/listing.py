"""The files below a folder: links to folders followed once, hidden and special files left out."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration, MissingObject
from pipeline.storage_errors import translate_errors

_SYSTEM_FOLDERS = frozenset({"@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that file servers and systems make beside the user's files."""
_TAKEN_TOGETHER = 1000
"""Objects of one page of S3's listing."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    root: str
    """The folder's URI; joined with a path of `files` it is the URI of the file."""
    files: tuple[str, ...]
    """Paths relative to the folder, sorted."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Entries that are not in `files`, by kind: hidden, special, unreadable."""
    links: dict[str, str] = field(default_factory=dict)
    """Linked folders whose files are listed elsewhere: path of the link, path of the folder."""


def list_files(uri: str, *, hidden: bool) -> Listing:
    """List the files below a folder.

    Args:
        uri: the folder, in any store.
        hidden: also list what is in parts that begin with a dot, and in folders of the system.

    Raises:
        InvalidConfiguration: the URI holds a password or the signature of a link.
        MissingObject: there is no such folder.
        StorageError: the store cannot be reached.
    """
    root = uris.make_absolute(uri)
    check_public(root)
    store, path = storage.get_filesystem(root)
    with translate_errors(root, "listed"):
        store.invalidate_cache()
        if not store.isdir(path):
            raise MissingObject(f"{uris.redact_uri(root)} is not a folder")
        if isinstance(store, LocalFileSystem):
            return _Walk(root, hidden).list_all()
        return _Selection(root, path.rstrip("/"), hidden).select(_iterate_names(store, path))


def check_public(uri: str) -> None:
    """Reject a folder whose URI holds a secret, because every row of the manifest would repeat it.

    Raises:
        InvalidConfiguration: the URI holds a password or the signature of a link.
    """
    if uris.strip_secrets(uri) != uri:
        raise InvalidConfiguration(
            f"{uris.redact_uri(uri)} is given with a password or signature, which every row of the "
            "manifest would repeat: leave it out, and pass it in the file of --storage-options"
        )


def is_hidden(name: str) -> bool:
    """Whether one part of a path belongs to the system or begins with a dot."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _iterate_names(store: Any, path: str) -> Iterator[str]:
    """The names of all objects below a path.

    fsspec's `find` returns all of them at once, with a dict for each. s3fs has the pages of its
    listing below that, in order.
    """
    if not all(hasattr(store, name) for name in ("_iterdir", "split_path", "loop")):
        for name, info in store.find(path, detail=True).items():
            if info.get("type", "file") == "file":
                yield name
        return
    bucket, key, _ = store.split_path(path)
    prefix = key.strip("/") + "/" if key.strip("/") else ""
    objects = store._iterdir(bucket, delimiter="", prefix=prefix)
    while names := sync(store.loop, _take_names, objects):
        yield from names


async def _take_names(objects: Any) -> list[str]:
    names = []
    async for info in objects:
        names.append(info["name"])
        if len(names) == _TAKEN_TOGETHER:
            break
    return names


class _Selection:
    """The files of an object store, which has neither links nor special files."""

    def __init__(self, root: str, path: str, hidden: bool) -> None:
        self._root = root
        self._path = path
        self._hidden = hidden
        self._count_hidden = 0

    def select(self, names: Iterator[str]) -> Listing:
        """Take the names of all objects below the path."""
        files = tuple(sorted(self._iterate_paths(names)))
        left_out = Counter({"hidden": self._count_hidden})
        return Listing(self._root, files, +left_out)

    def _iterate_paths(self, names: Iterator[str]) -> Iterator[str]:
        for name in names:
            if name.endswith("/"):  # what stands for a folder
                continue
            if not name.startswith(self._path + "/"):
                # Stores merge the slashes of s3://bucket//folder when they list; root must match.
                protocol, separator, rest = self._root.partition("://")
                self._root = protocol + separator + re.sub("/+", "/", rest)
                self._path = re.sub("(?<!:)/+", "/", self._path)
            path = name[len(self._path) + 1 :]
            if not self._hidden and any(map(is_hidden, path.split("/"))):
                self._count_hidden += 1
            else:
                yield path


class _Walk:
    """A walk through a local folder: real folders first, then links to folders not yet seen."""

    def __init__(self, root: str, hidden: bool) -> None:
        self._root = Path(root)
        self._hidden = hidden
        self._left_out: Counter[str] = Counter()
        self._seen: dict[tuple[int, int], str] = {}
        self._links: dict[str, str] = {}

    def list_all(self) -> Listing:
        files = tuple(sorted(self._iterate_files()))
        return Listing(str(self._root), files, self._left_out, dict(self._links))

    def _iterate_files(self) -> Iterator[str]:
        pending, linked = deque([""]), deque[str]()
        while pending or linked:
            folder = pending.popleft() if pending else linked.popleft()
            status = (self._root / folder).stat()
            earlier = self._seen.setdefault((status.st_dev, status.st_ino), folder)
            if earlier != folder:
                self._links[folder] = earlier
                continue
            folders: list[tuple[str, bool]] = []
            yield from self._scan(folder, folders)
            for path, is_link in sorted(folders):
                (linked if is_link else pending).append(path)

    def _scan(self, folder: str, folders: list[tuple[str, bool]]) -> Iterator[str]:
        """Yield the paths of the files of one folder; list its folders and whether each is a link."""
        try:
            entries = os.scandir(self._root / folder)
        except PermissionError:
            if not folder:
                raise
            self._left_out["unreadable folders"] += 1
            return
        with entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if not self._hidden and is_hidden(entry.name):
                    self._left_out["hidden"] += 1
                elif _is_folder(entry):
                    folders.append((path, entry.is_symlink()))
                elif _is_special(entry):
                    self._left_out["special"] += 1
                else:
                    yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links that lead to each other
        return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether reading the entry may never end: a FIFO, socket or device, also behind a link."""
    try:
        return not entry.is_file() and not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nothing: reading it says so
        return False
