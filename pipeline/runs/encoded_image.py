"""One image on its way through a run: encoded bytes and proposals, or why it failed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass
class EncodedImage:
    """One image on its way from the CPU tasks to a detector: encoded bytes and proposals."""

    image_id: str
    uri: str
    width: int | None = None
    height: int | None = None
    data: bytes | None = None
    boxes: NDArray[np.float32] | None = None
    failure: Failure | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded image and its boxes."""
        return len(self.data or b"") + (0 if self.boxes is None else self.boxes.nbytes)
