"""How strictly a source reads, and which orientation of the images its rows refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from pipeline.imaging import Exif

Mapper = Callable[[Callable[[Any], Any], Sequence[Any], int], Iterator[Future[Any]]]
"""Calls a function on each item, and yields what they return in order; the number bounds how far ahead."""


@dataclass(frozen=True)
class SourceOptions:
    """Options that all sources share."""

    max_invalid: float = 0.05
    """Share of the images that may be invalid, and of the boxes that may be dropped; 1 allows any number."""
    strict: bool = False
    """Raise the first error of an image or box instead of leaving it out."""
    check_sizes: bool = False
    """Compare each annotated size with the image's header; otherwise only where the header is read anyway."""
    exif: Exif = "ignore"
    """`apply` turns sizes and boxes to the orientation in which viewers display the images."""
    mapper: Mapper | None = None
    """Reads files and headers elsewhere than in threads of this process, in sources that allow it."""


DEFAULT = SourceOptions()
