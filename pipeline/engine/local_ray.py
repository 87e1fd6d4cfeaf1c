"""What a Ray that this process starts needs from its machine: a short folder for sockets, and a token."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InvalidConfiguration

log = logging.getLogger(__name__)

LONGEST_FOLDER = 38
"""Bytes of the folder's path: a socket's has at most 107, with `/ray/session_<time>_<pid>/sockets/` in it."""
SHORT_FOLDER = Path("/tmp")  # noqa: S108  (only the parent of a private folder)
TOKEN_PLACES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextlib.contextmanager
def prepare_session_folder() -> Iterator[str | None]:
    """The folder for Ray's session, or None if Ray's own choice works.

    A folder made here is private, and is removed at the end.

    Raises:
        InvalidConfiguration: neither Ray's choice nor /tmp can hold the session.
    """
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    fault = _find_fault(os.environ.get(variable) or str(SHORT_FOLDER))
    if fault is None:
        yield None
        return
    remedy = f"set RAY_TMPDIR to a writable folder whose path has at most {LONGEST_FOLDER} bytes"
    if variable == "RAY_TMPDIR":
        raise InvalidConfiguration(f"RAY_TMPDIR {os.environ[variable]} {fault}: {remedy}")
    try:
        folder = tempfile.mkdtemp(prefix="ray-", dir=SHORT_FOLDER)
    except OSError as error:
        raise InvalidConfiguration(
            f"the temporary folder {os.environ.get(variable) or SHORT_FOLDER} {fault}, "
            f"and {SHORT_FOLDER} cannot be written ({error.strerror}): {remedy}"
        ) from error
    log.warning(
        "TMPDIR %s %s, so Ray's session is in %s; to choose another place, %s",
        os.environ[variable],
        fault,
        folder,
        remedy,
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _find_fault(folder: str) -> str | None:
    """Why the folder cannot hold Ray's session, or None; makes it if it does not exist, as Ray does."""
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        return "is too long for Ray's sockets"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"cannot be written ({error.strerror or error})"
    return None


@contextlib.contextmanager
def provide_token() -> Iterator[None]:
    """Give this process's Ray a token in the environment if Ray cannot keep one in the home folder.

    Ray writes `~/.ray/auth_token` before it starts a cluster, and fails if it cannot.
    """
    if any(name in os.environ for name in TOKEN_PLACES) or _can_keep_token():
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]


def _can_keep_token() -> bool:
    """Whether Ray finds its token in the home folder, or can write one there."""
    try:
        folder = Path.home() / ".ray"
        if os.access(folder / "auth_token", os.R_OK):
            return True
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        return False
    return True
