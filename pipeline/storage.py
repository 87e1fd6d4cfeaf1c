"""Any fsspec store: read, list, remove, and put one object whole.

The options of a store (endpoint, keys) come from the same places as for its own tools (`AWS_*` variables,
config files, instance roles), from fsspec's configuration (`FSSPEC_S3='{"endpoint_url": ...}'` or
`~/.config/fsspec`), or by URI prefix from `store_options`, which wins. No output holds them, and messages
show URIs without user and query.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline import local_files, store_options, uris
from pipeline.atomic_files import remove_abandoned, remove_abandoned_of, replace_atomically
from pipeline.errors import AccessDenied, MissingObject, StorageError, UnusableObject
from pipeline.local_files import UnusableFile
from pipeline.storage_errors import describe_error, is_range_error, translate_errors

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
            opened = _open_filesystem(uri, options)
        except ValueError as error:
            unknown = "Protocol not known" in str(error)
            error_type = MissingObject if unknown else StorageError
            raise error_type(
                f"{uris.redact_uri(uri)} cannot be opened: {describe_error(error)}"
            ) from error
    return opened


def _open_filesystem(uri: str, options: dict[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    if "::" not in uri or uris.is_chain(uri):
        store, path = fsspec.core.url_to_fs(uri, **options)
        return store, str(path)
    # fsspec takes every `::` for a chain of file systems; here it belongs to a file's name.
    kind = fsspec.get_filesystem_class(uris.get_protocol(uri))
    return kind(**{**kind._get_kwargs_from_urls(uri), **options}), str(kind._strip_protocol(uri))


def check_packages(uri: str) -> None:
    """Fail if a package that the URI's store needs is not installed; makes no connection.

    Raises:
        StorageError: it is not; the message says how to install it. An unknown protocol passes: no package
            helps, and reading says so.
    """
    parts = uri.split("::") if uris.is_chain(uri) else [uri]
    for part in parts:
        kind = uris.get_protocol(part) if "://" in part or part is parts[-1] else part
        with translate_errors(uri, "opened"), contextlib.suppress(ValueError):
            fsspec.get_filesystem_class(kind)


def read(uri: str, max_bytes: int | None = None) -> bytes:
    """Read a whole object.

    Args:
        uri: the object; on a local disk only a regular file.
        max_bytes: the largest object to read; None reads one of any size.

    Raises:
        MissingObject: the object does not exist.
        UnusableObject: it is a FIFO, device or socket, or larger than `max_bytes`.
        AccessDenied: the credentials do not allow it.
        StorageError: the store does not answer, or answers with an error.
    """
    return _read_span(uri, max_bytes=max_bytes)


def read_start(uri: str, size: int) -> bytes:
    """Read the first `size` bytes of an object, or all of a smaller one; errors as for `read`."""
    return _read_span(uri, start=0, end=size)


def read_span(uri: str, start: int, end: int) -> bytes:
    """Read bytes `start` to `end` (excluded) of an object, or what there is of them; errors as for `read`."""
    return _read_span(uri, start=start, end=end)


def read_end(uri: str, size: int) -> bytes:
    """Read the last `size` bytes of an object, or all of a smaller one; errors as for `read`."""
    return _read_span(uri, start=-size)


def _read_span(
    uri: str, start: int | None = None, end: int | None = None, max_bytes: int | None = None
) -> bytes:
    store, path = get_filesystem(uri)
    with translate_errors(uri, "read"):
        try:
            if isinstance(store, LocalFileSystem):
                return local_files.read_span(path, start, end, max_bytes, ANSWER_SECONDS)
            data = _read_remote_span(store, path, start, end, max_bytes)
            local_files.check_size(len(data), max_bytes)
        except ValueError as error:  # an impossible name, such as one with a null byte
            raise MissingObject(
                f"{uris.redact_uri(uri)} cannot be read: {describe_error(error)}"
            ) from error
        except UnusableFile as error:
            raise UnusableObject(f"{uris.redact_uri(uri)} {error}") from error
    return data


def _read_remote_span(
    store: fsspec.AbstractFileSystem,
    path: str,
    start: int | None,
    end: int | None,
    max_bytes: int | None,
) -> bytes:
    """Bytes of an object; of one over `max_bytes` one byte more than that, by which the caller notices."""
    limit = _limit_time(store)
    if max_bytes is None:
        return bytes(store.cat_file(path, start=start, end=end, **limit))
    try:
        return bytes(store.cat_file(path, start=0, end=max_bytes + 1, **limit))
    except Exception as error:
        if not is_range_error(error):  # stores reject any range of an empty object
            raise
        return bytes(store.cat_file(path, **limit))


@contextlib.contextmanager
def open_file(uri: str, block_size: int | None = None) -> Iterator[Any]:
    """Open an object as a seekable binary file, to read parts of it such as a Parquet footer.

    Args:
        uri: the object; on a local disk only a regular file.
        block_size: bytes of one request to a store; None takes its client's default.
    """
    store, path = get_filesystem(uri)
    with translate_errors(uri, "read", in_block=True):
        if isinstance(store, LocalFileSystem):
            _check_regular(path, uri)
        store.invalidate_cache()  # the cached size of an object that was replaced would truncate it
        with store.open(path, "rb", block_size=block_size) as file:
            yield file


def _check_regular(path: str, uri: str) -> None:
    try:
        local_files.check_regular(path)
    except UnusableFile as error:
        raise UnusableObject(f"{uris.redact_uri(uri)} {error}") from error


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


def get_etag(uri: str) -> str | None:
    """A text that changes when an object does: its ETag, or else its size and time of change.

    Raises:
        MissingObject: the object does not exist.
        StorageError: the store cannot be reached.
    """
    store, path = get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        info = store.info(path, **_limit_time(store))
    if info.get("ETag"):
        return str(info["ETag"]).strip('"')
    changed = next(
        (info[key] for key in ("mtime", "LastModified", "updated") if info.get(key)), None
    )
    values = [str(value) for value in (info.get("size"), changed) if value is not None]
    return " ".join(values) or None


def is_folder(uri: str) -> bool:
    """Whether the URI is a folder (on an object store: whether any object is below it)."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        return bool(store.isdir(path))


def list_names(uri: str) -> list[str]:
    """List the sorted names of the objects directly in a folder; none if there is no such folder."""
    return sorted(list_sizes(uri))


def list_sizes(uri: str) -> dict[str, int]:
    """The objects directly in a folder, each with its bytes; none if there is no such folder."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "listed"):
        store.invalidate_cache()
        try:
            entries = store.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            posixpath.basename(entry["name"]): entry.get("size") or 0
            for entry in entries
            if entry["type"] != "directory"
        }


def put(uri: str, data: bytes) -> None:
    """Write one object whole: every reader sees the old object, the new one, or none."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "written"):
        if isinstance(store, LocalFileSystem):
            with replace_atomically(Path(path)) as scratch:
                scratch.write_bytes(data)
        else:
            store.pipe_file(path, data, **_limit_time(store))


def _limit_time(store: fsspec.AbstractFileSystem) -> dict[str, float]:
    """The time limit of one call, for stores behind a network."""
    return {"timeout": ANSWER_SECONDS} if isinstance(store, AsyncFileSystem) else {}


@contextlib.contextmanager
def write_whole(uri: str) -> Iterator[Path]:
    """A local file to write; if the block ends without an error, it is put whole at `uri`.

    On a local disk this also removes what killed writers of the same object left behind.
    """
    store, path = get_filesystem(uri)
    with translate_errors(uri, "written", in_block=True):
        if isinstance(store, LocalFileSystem):
            with replace_atomically(Path(path)) as scratch:
                yield scratch
            remove_abandoned_of(Path(path))
        else:
            with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as folder:
                scratch = Path(folder) / "object"
                yield scratch
                store.put_file(str(scratch), path)


_PIECE = 16 << 20
"""Bytes of a piece of a multipart upload; S3 takes 10,000 of them, so objects of up to 168 GB."""
_STREAMED = ("s3", "s3a", "gs", "gcs")
"""Protocols whose clients upload an object in pieces and show it only when it is complete."""


@contextlib.contextmanager
def write_stream(uri: str) -> Iterator[BinaryIO]:
    """A file to write from start to end; if the block ends without an error, it is put whole at `uri`.

    On S3 and Google Cloud Storage it is a multipart upload, of which memory holds one piece. If the process
    is killed meanwhile, no object appears, but the store keeps the pieces until its rule for incomplete
    uploads removes them. On other stores the file lies on the local disk first, as with `write_whole`.
    """
    store, path = get_filesystem(uri)
    if uris.is_chain(uri) or uris.get_protocol(uri) not in _STREAMED:
        with write_whole(uri) as scratch, scratch.open("wb") as file:
            yield file
        return
    with translate_errors(uri, "written", in_block=True):
        file = store.open(path, "wb", block_size=_PIECE)
        try:
            yield file
            file.close()
        except BaseException:
            file.closed = True  # else its destructor would upload the rest
            file.discard()
            raise


def remove(uri: str) -> None:
    """Remove one object; it is not an error if the object is gone already."""
    store, path = get_filesystem(uri)
    with translate_errors(uri, "removed"), contextlib.suppress(FileNotFoundError):
        store.rm_file(path)


def remove_scratch_files(uri: str, names: re.Pattern[str]) -> None:
    """Remove what killed writers left in a folder of the local disk; stores leave nothing.

    Args:
        uri: the folder.
        names: pattern of the names of the objects that were being written; other files stay.
    """
    store, path = get_filesystem(uri)
    if isinstance(store, LocalFileSystem):
        with translate_errors(uri, "cleaned"):
            remove_abandoned(Path(path), names)


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
