"""One image on its way through a run: encoded bytes and proposals, or why it failed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.image_members import Member
from pipeline.runs.report import Failure

IMAGE_ERRORS = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
)
"""Errors that computing on an image's pixels may raise and that fail the image. Others, such as a full disk,
may be the node's fault: the shard is retried, perhaps elsewhere."""


@dataclass(frozen=True)
class ImageContent:
    """What identifies the encoded bytes of an image."""

    size: int
    """Bytes."""
    md5: str
    """Hexadecimal digits: what S3 and Google Cloud Storage state of an object without sending it."""


def identify_content(data: bytes) -> ImageContent:
    """The size and MD5 of an image's bytes; 0.2 ms for 100 kB."""
    return ImageContent(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class ListedImage:
    """One image as the manifest lists it."""

    image_id: str
    uri: str
    stated_size: tuple[int, int] | None = None
    """Width and height in pixels that its boxes refer to; None if it is not annotated or they are unknown."""
    member: Member | None = None
    """Where the image lies in the file `uri`; None if it is that file."""
    key: str | None = None
    """`image_keys.compute_image_key` of the image."""


@dataclass
class EncodedImage:
    """One image on its way from the CPU tasks to a detector: encoded bytes and proposals."""

    image_id: str
    uri: str
    width: int | None = None
    """Of the decoded image; before it is decoded, of the one that the boxes were proposed for."""
    height: int | None = None
    data: bytes | None = None
    boxes: NDArray[np.float32] | None = None
    failure: Failure | None = None
    stated_size: tuple[int, int] | None = None
    """As in `ListedImage`."""
    key: str | None = None
    """As in `ListedImage`."""
    content: ImageContent | None = None
    """What identifies the bytes that were read; it stays when they are dropped."""

    def set_data(self, data: bytes) -> None:
        """Keep the encoded bytes, and what identifies them."""
        self.data = data
        self.content = identify_content(data)

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded image and its boxes."""
        return len(self.data or b"") + (0 if self.boxes is None else self.boxes.nbytes)
