"""Numba's `njit`, with places to keep compiled kernels that Numba's own lack.

Numba tries `NUMBA_CACHE_DIR`, `__pycache__` beside the source and the user's cache folder, in this order. In
a container whose packages and home are read-only, all of them fail, and so would every kernel.

It also keeps kernels by the path of their source. Ray copies the code of every submitted job into a folder of
its own, so each node would compile all kernels again for each job, and those of an image would serve no
submitted code. So with `NUMBA_CACHE_DIR`, and for code in a Ray working directory, kernels are kept by the
digest of the package's sources instead: equal code has the same kernels wherever it lies.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba
from numba import njit
from numba.core.caching import CacheImpl, UserProvidedCacheLocator
from numba.misc.appdirs import AppDirs

from pipeline.errors import InvalidConfiguration

__all__ = ["PRIVATE_FOLDER", "SourceLocator", "choose_private_folder", "digest_sources", "njit"]

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
_WORKING_DIRECTORIES = "runtime_resources"
"""The folder of a Ray session in which the code of submitted jobs lies."""


def choose_private_folder() -> Path | None:
    """A folder for the cache that only this user can write, or None if one of Numba's own works.

    Numba unpickles what the folder holds, so nobody else may put files there.

    Raises:
        InvalidConfiguration: the temporary folder cannot be written either.
    """
    user_folder = AppDirs(appname="numba", appauthor=False).user_cache_dir
    own_folders = [Path(__file__).parent / "__pycache__", Path(user_folder)]
    if os.environ.get("NUMBA_CACHE_DIR"):
        own_folders.insert(0, Path(os.environ["NUMBA_CACHE_DIR"]))
    if any(_is_writable(folder) for folder in own_folders):
        return None
    try:
        folder = _make_private_folder(Path(tempfile.gettempdir()))
    except OSError as error:
        raise InvalidConfiguration(
            f"compiled kernels cannot be kept: {', '.join(map(str, own_folders))} and the temporary folder "
            f"cannot be written ({error.strerror}); set NUMBA_CACHE_DIR to a folder that can"
        ) from error
    log.info("compiled kernels are kept in %s; NUMBA_CACHE_DIR chooses another folder", folder)
    return folder


def _is_writable(folder: Path) -> bool:
    """Whether Numba can write there, by the test that it uses itself."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _make_private_folder(parent: Path) -> Path:
    """One folder for all processes of this user, or one of this process if somebody else has that name."""
    shared = parent / f"fast-rcnn-kernels-{os.geteuid()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    state = shared.lstat()
    is_ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_ours and not others_write:
        return shared
    return Path(tempfile.mkdtemp(prefix="fast-rcnn-kernels-", dir=parent))


class SourceLocator(UserProvidedCacheLocator):
    """Finds the kernels of this package by the digest of its sources (`NUMBA_CACHE_LOCATOR_CLASSES`)."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        super().__init__(py_func, py_file)
        room = Path(py_file).parent.relative_to(PACKAGE)
        self._cache_path = str(Path(_choose_shared_folder(), digest_sources(PACKAGE), room))

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> SourceLocator | None:
        """The locator of a kernel; None for other packages and if Numba's own places serve as well."""
        if not Path(py_file).is_relative_to(PACKAGE) or not _choose_shared_folder():
            return None
        locator = cls(py_func, py_file)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


def _choose_shared_folder() -> str:
    """The folder of kernels by digest, or an empty text where they are kept by the path of their source."""
    if numba.config.CACHE_DIR:
        return str(numba.config.CACHE_DIR)
    if _WORKING_DIRECTORIES in PACKAGE.parts:
        return str(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    return ""


@lru_cache
def digest_sources(package: Path) -> str:
    """Digest the names and contents of all Python files of a package: 16 hexadecimal digits.

    Of all, because a kernel takes in what it calls and the constants it names, from other files too.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package)}:{len(content)}:".encode() + content)
    return digest.hexdigest()


PRIVATE_FOLDER = choose_private_folder()
if PRIVATE_FOLDER is not None:
    numba.config.CACHE_DIR = str(PRIVATE_FOLDER)
_own_locators = numba.config.CACHE_LOCATOR_CLASSES or ",".join(
    locator.__name__ for locator in CacheImpl._locator_classes
)
numba.config.CACHE_LOCATOR_CLASSES = f"{__name__}.SourceLocator,{_own_locators}"
