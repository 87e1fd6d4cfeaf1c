"""Local files that are replaced whole: readers see the old file, the new one, or none.

A writer holds a lock on its scratch file. A killed writer loses it, so a later run distinguishes what nobody
finishes from what is being written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

LONGEST_NAME = 255
"""Bytes of a file's name on common file systems."""
_SCRATCH = re.compile(r"\.(.+)\.[0-9a-f]{32}\.partial", re.DOTALL)
_NO_SYNC = (
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EACCES, errno.EPERM),
)
"""Errors of file systems that cannot sync a folder, and of folders that cannot be read."""


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A scratch file in the folder of `path` that replaces it, after fsync, if the block succeeds.

    fsspec writes local files in place, and its transactions cross filesystems: neither is atomic.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = _name_scratch(path)
    with scratch.open("xb") as lock:
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield scratch
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _name_scratch(path: Path) -> Path:
    """A unique name beside `path`, which holds as much of its name as fits."""
    return path.parent / f".{_shorten_name(path.name)}.{uuid.uuid4().hex}.partial"


def _shorten_name(name: str) -> str:
    """As much of a name as fits into the name of a scratch file."""
    return os.fsdecode(os.fsencode(name)[: LONGEST_NAME - len("..") - 32 - len(".partial")])


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def remove_abandoned_of(path: Path) -> None:
    """Remove the scratch files that killed writers of one file left beside it."""
    remove_abandoned(path.parent, re.compile(re.escape(_shorten_name(path.name)), re.DOTALL))


def remove_abandoned(folder: Path, names: re.Pattern[str]) -> None:
    """Remove the scratch files in a folder whose writers were killed.

    Args:
        folder: it may be missing.
        names: pattern of the names that were to be replaced; scratch files of other names stay.

    Raises:
        OSError: the folder cannot be read.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for scratch in folder.iterdir():
            match = _SCRATCH.fullmatch(scratch.name)
            if match and names.fullmatch(match[1]):
                _remove_if_abandoned(scratch)


def _remove_if_abandoned(scratch: Path) -> None:
    with contextlib.suppress(OSError), scratch.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while a writer holds it
        scratch.unlink()
        log.info("removed %s, which a killed writer left behind", scratch.name)
