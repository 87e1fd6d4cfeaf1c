"""From the pixels of any mode that Pillow decodes to 8-bit RGB, by one rule for each.

- Grey, palette, CMYK and other 8-bit modes: Pillow's conversion. An alpha channel is dropped.
- 16 bits: the highest 8 of the bits that the file states (TIFF's BitsPerSample, 12 for example; else 16).
  If all values are in the lowest sixteenth of the type's range, the file probably holds fewer bits than it
  states. The image would decode to black, so it is rejected.
- Float and 32-bit integer pixels have no known range: the image is rejected. PGM states its range, so
  Pillow has scaled it to 16 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from pipeline.errors import UnreadableImage

_STRIP_PIXELS = 2_000_000
"""Pixels converted at a time, so that a large image needs little more memory than its result."""
_DARK_LEVELS = 16
"""Of 256: 16-bit pixels below are taken for those of a file with fewer bits than it states."""
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def convert_to_rgb(canvas: Image.Image) -> NDArray[np.uint8]:
    """Decode an opened image to uint8 RGB `(H, W, 3)`.

    Raises:
        UnreadableImage: the values of its pixels have no known range.
        Exception: whatever Pillow raises for damaged pixels.
    """
    is_deep_colour = any(";16" in str(tile[-1]) for tile in getattr(canvas, "tile", ()))
    canvas.load()  # a TIFF is turned here, so its size is known afterwards
    bits = _find_bits(canvas)
    width, height = canvas.size
    rgb = np.empty((height, width, 3), np.uint8)
    largest = 0
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        strip = canvas if rows >= height else canvas.crop((0, top, width, bottom))
        if bits is None:
            rgb[top:bottom] = _convert_strip(strip)
        else:
            values = np.asarray(strip)
            largest = max(largest, int(values.max()))
            rgb[top:bottom] = np.clip(values >> (bits - 8), 0, 255).astype(np.uint8)[..., None]
    is_dark = 0 < largest < _DARK_LEVELS << 8 if bits else rgb.max() < _DARK_LEVELS
    if is_dark and (bits == 16 or (bits is None and is_deep_colour)):
        raise UnreadableImage(
            f"its 16-bit pixels are all below {_DARK_LEVELS << 8} of 65535 and would decode to nearly black: "
            "if they hold fewer bits, scale them to 16 or convert the image to 8"
        )
    if bits and _is_white_zero(canvas):
        np.subtract(255, rgb, out=rgb)
    return rgb


def _find_bits(canvas: Image.Image) -> int | None:
    """Significant bits of a single deep channel; None for 8-bit modes.

    Raises:
        UnreadableImage: the mode has no known range.
    """
    if canvas.mode == "F":
        raise UnreadableImage("float pixels have no known range: convert the image to 8 or 16 bits")
    if canvas.mode == "I" and canvas.format != "PPM":
        raise UnreadableImage(
            "signed or 32-bit integer pixels have no known range: convert the image to 8 or 16 bits"
        )
    if canvas.mode != "I" and canvas.mode not in _SIXTEEN_BIT:
        return None
    if isinstance(canvas, TiffImagePlugin.TiffImageFile):
        stated = canvas.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        return int(stated) if 8 < stated < 16 else 16
    return 16


def _is_white_zero(canvas: Image.Image) -> bool:
    """Whether a TIFF's 0 is white, which Pillow heeds for 8-bit pixels only."""
    if not isinstance(canvas, TiffImagePlugin.TiffImageFile):
        return False
    return bool(canvas.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0)


def _convert_strip(strip: Image.Image) -> NDArray[np.uint8]:
    if strip.mode == "RGB":
        return np.asarray(strip)
    if "transparency" in strip.info or strip.mode == "RGBA":
        # A palette with alpha: convert to RGBA first, whose alpha channel is then dropped.
        return np.asarray(strip if strip.mode == "RGBA" else strip.convert("RGBA"))[..., :3]
    return np.asarray(strip.convert("RGB"))
