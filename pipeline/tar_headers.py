"""Headers of tar members, checked in each read: a span of bytes alone cannot say which file it was."""

from __future__ import annotations

import tarfile

from pipeline import uris
from pipeline.errors import ChangedContainer
from pipeline.image_members import Member

HEADER_BYTES = tarfile.BLOCKSIZE
"""The header directly before a member's content."""


def check_header(header: bytes, length: int, uri: str, member: Member) -> None:
    """Check that a header is the one that was indexed, and announces a file of `length` bytes.

    Raises:
        ChangedContainer: it does not, so the tar file is another one than when it was indexed.
    """
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        is_right = info.chksum == member.header_checksum and info.size == length
    except tarfile.HeaderError:
        is_right = False
    if not is_right:
        raise ChangedContainer(
            f"{uris.redact_uri(uri)}: {member.describe()} are no file of {length} bytes any more: the tar "
            "file changed since the manifest was made; run prepare again"
        )
