"""Files of the local disk, which may be a mounted one: only regular ones are read, within limits."""

from __future__ import annotations

import os
import stat
import threading

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFile(Exception):
    """A file that is not read; the message is what it is, without its name."""


def check_regular(path: str) -> int:
    """The size in bytes of a file, without opening it: opening a FIFO waits for a writer.

    Raises:
        UnusableFile: it is a FIFO, socket or device.
        OSError: there is no such file.
    """
    status = os.stat(path)  # noqa: PTH116  (a Path would drop the slashes at the end of a name)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise UnusableFile(f"is {kind}, not a regular file")
    return status.st_size


def read_span(
    path: str, start: int | None, end: int | None, max_bytes: int | None, seconds: float
) -> bytes:
    """Read a file, or the span of bytes from `start` to `end`, as a slice has them.

    Args:
        path: the file.
        start: first byte; negative counts from the end; None is 0.
        end: byte after the last one; None is the end of the file.
        max_bytes: the largest file to read; None reads one of any size.
        seconds: how long the disk may take: a dead network disk never answers.

    Raises:
        UnusableFile: a FIFO, socket or device, or over `max_bytes`.
        TimeoutError: the disk does not answer.
        OSError: what the system says.
    """
    contents: list[bytes] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            contents.append(_read(path, start, end, max_bytes))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True, name="read-file")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not contents:
        raise TimeoutError(f"the disk did not answer within {seconds:g} s")
    return contents[0]


def _read(path: str, start: int | None, end: int | None, max_bytes: int | None) -> bytes:
    check_size(check_regular(path), max_bytes)
    with open(path, "rb") as file:  # noqa: PTH123
        size = os.fstat(file.fileno()).st_size
        first, last, _ = slice(start, end).indices(size)
        if start is not None or end is not None:
            file.seek(first)
            return file.read(max(0, last - first))
        # A file that grows meanwhile, or a link to one of /proc, holds more than its size says.
        data = file.read() if max_bytes is None else file.read(max_bytes + 1)
    check_size(len(data), max_bytes)
    return data


def check_size(size: int, max_bytes: int | None) -> None:
    """Reject a file of more than `max_bytes` bytes.

    Raises:
        UnusableFile: it is larger.
    """
    if max_bytes is not None and size > max_bytes:
        raise UnusableFile(f"has more than {max_bytes / 1e6:g} MB, the limit for such a file")
