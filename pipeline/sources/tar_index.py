"""The members of an uncompressed tar file, by reading their headers only."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UnreadableDataset

BLOCK_BYTES = 64 << 10
"""Bytes of one request to a store: a header, and with it mostly that of the image behind it."""
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class TarMember:
    """One file in a tar file."""

    name: str
    offset: int
    """First byte of its content."""
    length: int
    """Bytes of its content."""
    checksum: int
    """Of its header, which holds name, size and time."""


class TarIndex:
    """An open tar file: its members in order, and bytes of them."""

    def __init__(self, file: Any, where: str) -> None:
        """Read from an open binary file, which messages name `where`.

        Raises:
            UnreadableDataset: the file is compressed.
        """
        self._file = file
        self._where = where
        self.fault: str | None = None
        """Why members behind the last one are lost, if the file is damaged or cut off; set by `iterate`."""
        self.links: list[str] = []
        """Members that are links to others, as GNU tar writes a file of two names; set by `iterate`."""
        self.has_end_mark = False
        """Whether the last member is followed by the blocks that end a tar file; set by `iterate`."""
        start = file.read(8)
        for magic, name in _COMPRESSED.items():
            if start.startswith(magic):
                raise UnreadableDataset(
                    f"{where} is compressed with {name}: images in it have no position of their own; "
                    "decompress it first"
                )
        file.seek(0)

    def iterate(self) -> Iterator[TarMember]:
        """The regular files in the order of the tar file; folders, links and devices are left out.

        If the file is damaged or cut off, `fault` says so afterwards. Each header has a checksum, so the
        members before the damage are as they were written.

        Raises:
            UnreadableDataset: a member is a sparse file.
        """
        size = self._find_size()
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                for info in tar:
                    tar.members = []  # type: ignore[attr-defined]  # else all stay in memory
                    if info.issym() or info.islnk():
                        self.links.append(f"{info.name!r:.200} -> {info.linkname!r:.200}")
                    if not info.isreg():
                        continue
                    if info.issparse():
                        raise UnreadableDataset(f"{self._where}: {info.name!r} is a sparse file")
                    if info.offset_data + info.size > size:
                        self.fault = (
                            f"{self._where} ends in the middle of {info.name!r:.200}: it is cut off"
                        )
                        return
                    yield TarMember(info.name, info.offset_data, info.size, info.chksum)
                self._check_end(tar.offset, size)
        except tarfile.TarError as error:
            self.fault = f"{self._where} is no tar file, or damaged: {error}"

    def _check_end(self, offset: int, size: int) -> None:
        """Look at what is behind the last member: the end mark, nothing, or the start of another member."""
        block = self.read_span(offset, tarfile.BLOCKSIZE)
        if any(block) or 0 < len(block) < tarfile.BLOCKSIZE:
            self.fault = (
                f"{self._where} is cut off or damaged at byte {offset} of {size}, inside a member"
            )
        self.has_end_mark = len(block) > 0

    def read_span(self, start: int, size: int) -> bytes:
        """Bytes of the file, fewer at its end; for use while `iterate` is under way."""
        position = self._file.tell()
        self._file.seek(start)
        data: bytes = self._file.read(size)
        self._file.seek(position)
        return data

    def _find_size(self) -> int:
        size: int = self._file.seek(0, 2)
        self._file.seek(0)
        return size
