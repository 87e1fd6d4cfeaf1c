"""Numba's `njit`, with a place to keep compiled kernels if none of Numba's own can be written.

Numba tries `NUMBA_CACHE_DIR`, `__pycache__` beside the source and the user's cache folder, in this order. In
a container whose packages and home are read-only, all of them fail, and so would every kernel.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

import numba
from numba import njit
from numba.misc.appdirs import AppDirs

from pipeline.errors import InvalidConfiguration

__all__ = ["PRIVATE_FOLDER", "choose_private_folder", "njit"]

log = logging.getLogger(__name__)


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


PRIVATE_FOLDER = choose_private_folder()
if PRIVATE_FOLDER is not None:
    numba.config.CACHE_DIR = str(PRIVATE_FOLDER)
