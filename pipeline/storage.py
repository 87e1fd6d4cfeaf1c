"""Any fsspec store: read, list, remove, and put one object whole.

Options of a store (endpoint, keys) come from where its own tools take them (`AWS_*` variables, config
files, instance roles), from fsspec's configuration (`FSSPEC_S3='{"endpoint_url": ...}'` or
`~/.config/fsspec`), or by URI prefix from `store_options`, which wins. They stay out of what is written:
messages show a URI without user and query.
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

from pipeline import store_options
from pipeline.errors import StorageError
from pipeline.storage_errors import (
    AccessDenied,
    MissingObject,
    cleared,
    naming,
    protocol,
    public,
    reason,
    shown,
)

# What belongs to storage but stands in the module of its errors; all below is public as well.
__all__ = ["AccessDenied", "MissingObject", "cleared", "protocol", "public", "shown"]

ANSWER_SECONDS = 90.0
"""How long a store may take to read or to put one object, its client's own retries included."""

_IMPATIENT: dict[str, dict[str, Any]] = {
    # The stores' own defaults wait minutes for an endpoint that does not answer.
    "s3": {
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 3}}
    },
}


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The store of a URI and the path in it.

    Raises:
        MissingObject: there is no such protocol.
        StorageError: its package is not installed, or it refuses its options.
    """
    kind = protocol(uri)
    defaults = _IMPATIENT.get("s3" if kind == "s3a" else kind, {})
    options = {k: v for k, v in defaults.items() if k not in fsspec.config.conf.get(kind, {})}
    options |= store_options.used().of(uri)
    with naming(uri, "opened"):
        try:
            store, path = fsspec.core.url_to_fs(uri, **options)
        except ValueError as error:
            unknown = "Protocol not known" in str(error)
            fault = MissingObject if unknown else StorageError
            raise fault(f"{shown(uri)} cannot be opened: {reason(error)}") from error
        return store, str(path)


def absolute(uri: str) -> str:
    """The URI, or an absolute path for a relative one."""
    if protocol(uri) == "file":
        return str(Path(uri.removeprefix("file://")).expanduser().absolute())
    return _without_slash(uri)


def join(uri: str, *names: str) -> str:
    """The URI of something below `uri`."""
    return posixpath.join(_without_slash(uri), *names)


def _without_slash(uri: str) -> str:
    """The URI without slashes at its end, but `/` and `memory://` stay whole."""
    kind, separator, path = uri.rpartition("://")
    return kind + separator + (path.rstrip("/") or path[:1])


def read(uri: str) -> bytes:
    """The whole object.

    Raises:
        MissingObject: nothing lies there.
        AccessDenied: the credentials do not reach it.
        StorageError: the store does not answer, or answers with an error.
    """
    return _content(uri)


def read_start(uri: str, size: int) -> bytes:
    """The first `size` bytes of an object, or all of a smaller one; errors are those of `read`."""
    return _content(uri, start=0, end=size)


def read_end(uri: str, size: int) -> bytes:
    """The last `size` bytes of an object, or all of a smaller one; errors are those of `read`."""
    return _content(uri, start=-size)


def _content(uri: str, **span: int) -> bytes:
    store, path = filesystem(uri)
    with naming(uri, "read"):
        try:
            return bytes(store.cat_file(path, **span, **_limit(store)))
        except ValueError as error:  # a name that cannot be, with a null byte in it, say
            raise MissingObject(f"{shown(uri)} cannot be read: {reason(error)}") from error


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Any]:
    """A seekable binary file for reading parts of an object, such as a Parquet footer."""
    store, path = filesystem(uri)
    with naming(uri, "read", in_block=True):
        store.invalidate_cache()  # a size kept since an object was put anew would cut it short
        with store.open(path, "rb") as file:
            yield file


def exists(uri: str) -> bool:
    """Whether an object or folder lies at the URI."""
    store, path = filesystem(uri)
    with naming(uri, "looked up"):
        store.invalidate_cache()
        return bool(store.exists(path))


def size(uri: str) -> int:
    """Bytes of an object, without reading it.

    Raises:
        MissingObject: nothing lies there.
        StorageError: the store cannot be reached, or does not tell.
    """
    store, path = filesystem(uri)
    with naming(uri, "looked up"):
        store.invalidate_cache()
        try:
            told = store.info(path, **_limit(store)).get("size")
        except ValueError as error:  # a name that cannot be, with a null byte in it, say
            raise MissingObject(f"{shown(uri)} cannot be looked up: {reason(error)}") from error
    if told is None:
        raise StorageError(f"{shown(uri)}: its store does not tell its size")
    return int(told)


def is_folder(uri: str) -> bool:
    """Whether the URI is a folder (on an object store: whether something lies below it)."""
    store, path = filesystem(uri)
    with naming(uri, "looked up"):
        store.invalidate_cache()
        return bool(store.isdir(path))


def names(uri: str) -> list[str]:
    """Sorted names of the objects directly in a folder; none if there is no such folder."""
    store, path = filesystem(uri)
    with naming(uri, "listed"):
        store.invalidate_cache()
        try:
            entries = store.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(
            posixpath.basename(entry["name"]) for entry in entries if entry["type"] != "directory"
        )


def files_below(uri: str) -> list[str]:
    """Sorted paths, relative to the folder, of all objects below it.

    Raises:
        MissingObject: there is no such folder.
    """
    store, path = filesystem(uri)
    with naming(uri, "listed"):
        store.invalidate_cache()
        if not store.isdir(path):
            raise MissingObject(f"{shown(uri)} is not a folder")
        root = path.rstrip("/")
        return sorted(found[len(root) + 1 :] for found in store.find(path))


def put(uri: str, data: bytes) -> None:
    """Write one object whole: whoever reads it sees the old object, the new one, or none."""
    store, path = filesystem(uri)
    with naming(uri, "written"):
        if isinstance(store, LocalFileSystem):
            with _beside(Path(path)) as scratch:
                scratch.write_bytes(data)
        else:
            store.pipe_file(path, data, **_limit(store))


def _limit(store: fsspec.AbstractFileSystem) -> dict[str, float]:
    """The time limit of one call, for the stores that are asked over a network."""
    return {"timeout": ANSWER_SECONDS} if isinstance(store, AsyncFileSystem) else {}


@contextlib.contextmanager
def whole_file(uri: str) -> Iterator[Path]:
    """A local file to fill; when the block ends without an error, it is put whole at `uri`."""
    store, path = filesystem(uri)
    with naming(uri, "written", in_block=True):
        if isinstance(store, LocalFileSystem):
            with _beside(Path(path)) as scratch:
                yield scratch
        else:
            with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as folder:
                scratch = Path(folder) / "object"
                yield scratch
                store.put_file(str(scratch), path)


def remove(uri: str) -> None:
    """Remove one object; one that is gone already is no error."""
    store, path = filesystem(uri)
    with naming(uri, "removed"), contextlib.suppress(FileNotFoundError):
        store.rm_file(path)


def check_writable(uri: str) -> None:
    """Put and remove a small object in the folder `uri`, so that a run fails before its work.

    Raises:
        StorageError: the folder cannot be written.
    """
    probe = join(uri, f".write-probe-{uuid.uuid4().hex}")
    try:
        put(probe, b"")
        remove(probe)
    except StorageError as error:  # the folder is what the user named
        raise type(error)(str(error).replace(shown(probe), shown(uri))) from error


def check_reachable(uri: str, seconds: float = 20.0) -> None:
    """Ask the URI's store for an answer, whatever it is, so that a run fails before its work.

    The clients of some stores retry for minutes; this gives up on them, though they go on in a thread.

    Raises:
        StorageError: there is no such store, it asks for credentials that are not there, or it does
            not answer within `seconds`.
    """
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            exists(uri)
        except AccessDenied:
            pass  # an answer: what is allowed is for the reader or writer to find out
        except BaseException as error:
            caught.append(error)

    asking = threading.Thread(target=ask, daemon=True, name="check-reachable")
    asking.start()
    asking.join(seconds)
    if asking.is_alive():
        raise StorageError(
            f"{shown(uri)}: its store did not answer within {seconds:g} s: check endpoint and network"
        )
    if caught:
        raise caught[0]


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A scratch file in the folder of `path` that replaces it, after fsync, when the block succeeds.

    fsspec's own local writes are in place and its transactions cross filesystems: neither is atomic.
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
