"""How strictly a source reads, and which orientation of the images its rows refer to."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.imaging import Exif


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


DEFAULT = SourceOptions()
