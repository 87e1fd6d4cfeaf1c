"""The signature of an image: perceptual hashes of several views of it, and a small copy of its pixels.

The hash is ImageHash's `phash`: the signs of the 8x8 lowest frequencies of the grey image about their median
(Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010), 64 bits. It hardly changes
if the image is rescaled, recompressed or brightened, but it does if the image is mirrored or cropped. So an
image has one hash for each *view*: as it is, mirrored, and without 5 % of its sides at nine places. A cropped
or mirrored copy as it is has nearly the hash of a view of the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import imaging
from pipeline.errors import InvalidConfiguration

VERSION = 1
"""Raised when an image gets another signature than before."""

DECODED_SIDE = 200
"""Pixels of the longer side from which on a JPEG may be decoded reduced: hashes need no more."""
PIXELS_SIDE = 32
"""Sides of the copy of the pixels."""
_HASHED_SIDE = 128
_CUT = 0.05


@dataclass(frozen=True)
class View:
    """One view of an image: a part of it, as a share of its sides, maybe mirrored."""

    left: float = 0.0
    top: float = 0.0
    size: float = 1.0
    is_mirrored: bool = False

    @property
    def name(self) -> str:
        """The view in words: `as it is`, `mirrored`, `cropped`, `cropped and mirrored`."""
        words = [
            w for w, is_so in (("cropped", self.size < 1), ("mirrored", self.is_mirrored)) if is_so
        ]
        return " and ".join(words) or "as it is"


def _list_views() -> tuple[View, ...]:
    places = [(x, y) for y in (0.0, _CUT / 2, _CUT) for x in (0.0, _CUT / 2, _CUT)]
    windows = [View(), *(View(x, y, 1 - _CUT) for x, y in places)]
    windows.append(View(_CUT, _CUT, 1 - 2 * _CUT))
    return tuple(View(v.left, v.top, v.size, m) for v in windows for m in (False, True))


VIEWS = _list_views()
"""All views; the first is the image as it is, the second the mirrored one."""


@dataclass(frozen=True)
class Signature:
    """What near duplicates are found by."""

    hashes: NDArray[np.uint64]
    """`(V,)`, one for each of `VIEWS`."""
    pixels: NDArray[np.uint8]
    """Grey `(PIXELS_SIDE, PIXELS_SIDE)`, whatever the shape of the image."""
    brightness: float
    """Mean of the grey pixels, 0 to 255."""
    contrast: float
    """Their standard deviation."""


def compute_signature(image: NDArray[np.uint8]) -> Signature:
    """The signature of a decoded RGB image `(H, W, 3)`.

    Raises:
        InvalidConfiguration: the package ImageHash is not installed.
    """
    small = imaging.resize(image, _HASHED_SIDE, _HASHED_SIDE)
    grey = Image.fromarray(small).convert("L")
    values = np.asarray(grey, np.float64)
    pixels = np.asarray(grey.resize((PIXELS_SIDE, PIXELS_SIDE), Image.Resampling.BOX))
    hashes = np.array([_hash_view(grey, view) for view in VIEWS], np.uint64)
    return Signature(hashes, pixels, float(values.mean()), float(values.std()))


def _hash_view(grey: Image.Image, view: View) -> int:
    left, top, side = (_HASHED_SIDE * share for share in (view.left, view.top, view.size))
    shown = grey.resize((32, 32), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    if view.is_mirrored:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    bits = _import_imagehash().phash(shown).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def check_installed() -> None:
    """Fail now rather than in a task if ImageHash or DuckDB is missing.

    Raises:
        InvalidConfiguration: one of them is not installed.
    """
    _import_imagehash()
    try:
        import duckdb  # noqa: F401, PLC0415  (an extra)
    except ImportError as error:
        raise _describe_missing("DuckDB") from error


def _import_imagehash() -> Any:
    try:
        import imagehash  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _describe_missing("ImageHash") from error
    return imagehash


def _describe_missing(package: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"checking a dataset needs {package}: run pip install '.[checks]' in the clone"
    )
