"""Reads the encoded bytes of images: files of their own, spans of tar files, rows of Parquet files.

The one place that knows how: every job, report and command reads its images here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic

from pipeline import imaging, storage, uris
from pipeline.errors import ChangedContainer, MissingObject, UnusableObject
from pipeline.image_members import Member
from pipeline.parquet_cells import CellReader
from pipeline.tar_headers import HEADER_BYTES, check_header

LARGEST_SPAN = 8 << 20
"""Bytes of one request for neighbouring images of a tar file; a larger image has one of its own."""
LARGEST_GAP = 256 << 10
"""Bytes between two images up to which one request for both is quicker than two."""
_CHECKED_SECONDS = 60.0
"""How long a file that was compared with the manifest is not looked up again."""

_cells = CellReader()
"""Of the process: tasks that follow each other, and threads, read from the same row groups."""


class ImageReader:
    """Reads the images of some rows, best in their order: neighbours in a tar file share requests.

    It holds one span of at most `LARGEST_SPAN` bytes. It is not for several threads.
    """

    def __init__(self, images: Sequence[tuple[str, Member | None]]) -> None:
        """Read among these images, each a URI and its member."""
        self._images = images
        self._span_uri = ""
        self._span_start = 0
        self._span = b""

    def read(self, index: int) -> bytes:
        """The encoded bytes of an image.

        Raises:
            MissingObject: the image does not exist, or its file is larger than an image may be.
            ChangedContainer: the file that holds it is another one than when the manifest was made.
            AccessDenied: the credentials do not allow it.
            StorageError: the store does not answer, or answers with an error.
        """
        uri, member = self._images[index]
        if member is None:
            return storage.read(uri, imaging.MAX_FILE_BYTES)
        if member.failure is not None:
            raise MissingObject(f"the dataset has no image: {member.failure}")
        check_container(uri, member.etag)
        if member.row is not None:
            return _read_cell(uri, member)
        return self._read_span(index, uri, member)

    def _read_span(self, index: int, uri: str, member: Member) -> bytes:
        start, end = _locate(member)
        if end - start > imaging.MAX_FILE_BYTES:
            raise UnusableObject(
                f"{uris.redact_uri(uri)}: {member.describe()} are more than "
                f"{imaging.MAX_FILE_BYTES / 1e6:g} MB, the limit for an image"
            )
        span_end = self._span_start + len(self._span)
        if uri != self._span_uri or not self._span_start <= start <= end <= span_end:
            last = self._find_end(index, uri, start, end)
            self._span, self._span_uri = storage.read_span(uri, start, last), uri
            self._span_start = start
        data = self._span[start - self._span_start : end - self._span_start]
        check_header(data[:HEADER_BYTES], end - start - HEADER_BYTES, uri, member)
        return data[HEADER_BYTES:]

    def _find_end(self, index: int, uri: str, start: int, end: int) -> int:
        """Where the request ends that reads an image, and the next ones if they are near."""
        for next_uri, member in self._images[index + 1 :]:
            if next_uri != uri or member is None or not member.is_span:
                break
            next_start, next_end = _locate(member)
            is_near = end <= next_start <= end + LARGEST_GAP
            if not is_near or next_end - start > LARGEST_SPAN:
                break
            end = next_end
        return end


def read_image(uri: str, member: Member | None = None) -> bytes:
    """The encoded bytes of one image; errors as for `ImageReader.read`."""
    return ImageReader([(uri, member)]).read(0)


def _read_cell(uri: str, member: Member) -> bytes:
    assert member.row is not None
    data = _cells.read(uri, member.etag, member.image_column or "", member.row)
    if data is None:
        raise ChangedContainer(f"{uris.redact_uri(uri)}: row {member.row} has no image any more")
    return data


def _locate(member: Member) -> tuple[int, int]:
    """First byte of a tar member's header, and the byte behind its content."""
    first, end = member.span
    return first - HEADER_BYTES, end


_checked: dict[tuple[str, str], float] = {}
_checked_lock = threading.Lock()


def check_container(uri: str, etag: str | None) -> None:
    """Compare a file that holds images with what the manifest says of it, at most once a minute.

    Raises:
        ChangedContainer: it is another file now.
        MissingObject, AccessDenied, StorageError: it cannot be looked up.
    """
    if etag is None:
        return
    key = (uri, etag)
    with _checked_lock:
        checked = _checked.get(key)
    if checked is not None and monotonic() - checked < _CHECKED_SECONDS:
        return
    actual = storage.get_etag(uri)
    if actual != etag:
        raise ChangedContainer(
            f"{uris.redact_uri(uri)} changed since the manifest was made ({etag} then, {actual} now): "
            "run prepare again"
        )
    with _checked_lock:
        if len(_checked) > 10_000:
            _checked.clear()
        _checked[key] = monotonic()
