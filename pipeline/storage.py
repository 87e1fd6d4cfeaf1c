"""Any fsspec store: read, list, remove, and put one object whole.

The options of a store (endpoint, keys) come from the same places as for its own tools (`AWS_*` variables,
config files, instance roles), from fsspec's configuration (`FSSPEC_S3='{"endpoint_url": ...}'` or
`~/.config/fsspec`), or by URI prefix from `store_options`, which wins. No output holds them, and messages
show URIs without user and query.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline import store_options, uris
from pipeline.errors import AccessDenied, MissingObject, StorageError
from pipeline.storage_errors import describe_error, translate_errors

ANSWER_SECONDS = 90.0
"""Seconds that a store may take to read or put one object, including the retries of its client."""

_IMPATIENT: dict[str, dict[str, Any]] = {
    # By default its client waits minutes for an endpoint that does not answer.
    "s3": {
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 3}}
    },
}


def get_filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The store of a URI and the path in it.

    Raises:
        MissingObject: there is no such protocol.
        StorageError: the protocol's package is not installed, or the store rejects its options.
    """
    kind = uris.get_protocol(uri)
    defaults = _IMPATIENT.get("s3" if kind == "s3a" else kind, {})
    options = {k: v for k, v in defaults.items() if k not in fsspec.config.conf.get(kind, {})}
    options |= store_options.get_options().find_options(uri)
    with translate_errors(uri, "opened"):
        try:
            store, path = fsspec.core.url_to_fs(uri, **options)
        except ValueError as error:
            unknown = "Protocol not known" in str(error)
            error_type = MissingObject if unknown else StorageError
            raise error_type(
                f"{uris.redact_uri(uri)} cannot be opened: {describe_error(error)}"
            ) from error
        return store, str(path)


def read(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        MissingObject: the object does not exist.
        AccessDenied: the credentials do not allow it.
        StorageError: the store does not answer, or answers with an error.
    """
    return _read_span(uri)


def read_start(uri: str, size: int) -> bytes:
    """Read the first `size` bytes of an object, or all of a smaller one; errors as for `read`."""
    return _read_span(uri, start=0, end=size)


def read_end(uri: str, size: int) -> bytes:
    """Read the last `size` bytes of an object, or all of a smaller one; errors as for `read`."""
    return _read_span(uri, start=-size)


def _read_span(uri: str, **span: int) -> bytes:
    store, path = get_filesystem(uri)
    with translate_errors(uri, "read"):
        try:
            return bytes(store.cat_file(path, **span, **_limit_time(store)))
        except ValueError as error:  # an impossible name, such as one with a null byte
            raise MissingObject(
                f"{uris.redact_uri(uri)} cannot be read: {describe_error(error)}"
            ) from error


@contextlib.contextmanager
def open_file(uri: str) -> Iterator[Any]:
    """Open an object as a seekable binary file, to read parts of it such as a Parquet footer."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "read", in_block=True):
        store.invalidate_cache()  # the cached size of an object that was replaced would truncate it
        with store.open(path, "rb") as file:
            yield file


def exists(uri: str) -> bool:
    """Whether an object or folder exists at the URI."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        return bool(store.exists(path))


def get_size(uri: str) -> int:
    """Bytes of an object, without reading it.

    Raises:
        MissingObject: the object does not exist.
        StorageError: the store cannot be reached, or does not report sizes.
    """
    store, path = get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        try:
            size = store.info(path, **_limit_time(store)).get("size")
        except ValueError as error:  # an impossible name, such as one with a null byte
            raise MissingObject(
                f"{uris.redact_uri(uri)} cannot be looked up: {describe_error(error)}"
            ) from error
    if size is None:
        raise StorageError(f"{uris.redact_uri(uri)}: its store does not report its size")
    return int(size)


def is_folder(uri: str) -> bool:
    """Whether the URI is a folder (on an object store: whether any object is below it)."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        return bool(store.isdir(path))


def list_names(uri: str) -> list[str]:
    """List the sorted names of the objects directly in a folder; none if there is no such folder."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "listed"):
        store.invalidate_cache()
        try:
            entries = store.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            posixpath.basename(entry["name"]) for entry in entries if entry["type"] != "directory"
        )


def list_below(uri: str) -> list[str]:
    """List the sorted paths, relative to the folder, of all objects below it.

    Raises:
        MissingObject: there is no such folder.
    """
    store, path = get_filesystem(uri)
    with translate_errors(uri, "listed"):
        store.invalidate_cache()
        if not store.isdir(path):
            raise MissingObject(f"{uris.redact_uri(uri)} is not a folder")
        root = path.rstrip("/")
        return sorted(name[len(root) + 1 :] for name in store.find(path))


def put(uri: str, data: bytes) -> None:
    """Write one object whole: every reader sees the old object, the new one, or none."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "written"):
        if isinstance(store, LocalFileSystem):
            with _replace_atomically(Path(path)) as scratch:
                scratch.write_bytes(data)
        else:
            store.pipe_file(path, data, **_limit_time(store))


def _limit_time(store: fsspec.AbstractFileSystem) -> dict[str, float]:
    """The time limit of one call, for stores behind a network."""
    return {"timeout": ANSWER_SECONDS} if isinstance(store, AsyncFileSystem) else {}


@contextlib.contextmanager
def write_whole(uri: str) -> Iterator[Path]:
    """A local file to write; if the block ends without an error, it is put whole at `uri`."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "written", in_block=True):
        if isinstance(store, LocalFileSystem):
            with _replace_atomically(Path(path)) as scratch:
                yield scratch
        else:
            with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as folder:
                scratch = Path(folder) / "object"
                yield scratch
                store.put_file(str(scratch), path)


def remove(uri: str) -> None:
    """Remove one object; it is not an error if the object is gone already."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "removed"), contextlib.suppress(FileNotFoundError):
        store.rm_file(path)


def check_writable(uri: str) -> None:
    """Put and remove a small object in the folder `uri`, so that a run fails before it does any work.

    Raises:
        StorageError: the folder cannot be written.
    """
    probe = uris.join(uri, f".write-probe-{uuid.uuid4().hex}")
    try:
        put(probe, b"")
        remove(probe)
    except StorageError as error:  # the user named the folder, not the probe
        raise type(error)(
            str(error).replace(uris.redact_uri(probe), uris.redact_uri(uri))
        ) from error


def check_reachable(uri: str, seconds: float = 20.0) -> None:
    """Wait for any answer of the URI's store, so that a run fails before it does any work.

    The clients of some stores retry for minutes; this stops waiting, while they continue in a thread.

    Raises:
        StorageError: there is no such store, it needs credentials that are missing, or it does not
            answer within `seconds`.
    """
    errors: list[BaseException] = []

    def check() -> None:
        try:
            exists(uri)
        except AccessDenied:
            pass  # an answer: the reader or writer will see what is allowed
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=check, daemon=True, name="check-reachable")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise StorageError(
            f"{uris.redact_uri(uri)}: its store did not answer within {seconds:g} s: "
            "check endpoint and network"
        )
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _replace_atomically(path: Path) -> Iterator[Path]:
    """A scratch file in the folder of `path` that replaces it, after fsync, if the block succeeds.

    fsspec writes local files in place, and its transactions cross filesystems: neither is atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name}.{uuid.uuid4().hex}.partial"
    try:
        yield scratch
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        scratch.unlink(missing_ok=True)
