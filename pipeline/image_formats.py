"""The accepted image formats: their file endings, and how the bytes of one are opened.

Pillow opens more than forty formats, among them EPS, for which it starts Ghostscript. Only those named here
are tried, whatever a file's name says.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipeline.errors import UnreadableImage

ENDINGS_BY_FORMAT: dict[str, tuple[str, ...]] = {
    JpegImagePlugin.JpegImageFile.format: (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    PngImagePlugin.PngImageFile.format: (".png", ".apng"),
    WebPImagePlugin.WebPImageFile.format: (".webp",),
    TiffImagePlugin.TiffImageFile.format: (".tif", ".tiff"),
    BmpImagePlugin.BmpImageFile.format: (".bmp",),
    BmpImagePlugin.DibImageFile.format: (".dib",),
    GifImagePlugin.GifImageFile.format: (".gif",),
    Jpeg2KImagePlugin.Jpeg2KImageFile.format: (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    AvifImagePlugin.AvifImageFile.format: (".avif", ".avifs"),
    PpmImagePlugin.PpmImageFile.format: (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Pillow's name of each accepted format, with its lower-case file endings. MPO counts as JPEG, of which it
is an extension."""

IMAGE_SUFFIXES = frozenset(ending for endings in ENDINGS_BY_FORMAT.values() for ending in endings)
"""Lower-case file endings that count as images when a folder is listed."""

_ACCEPTED = ", ".join(ENDINGS_BY_FORMAT)
_PREFIX_BYTES = 16  # what Pillow gives its formats to recognise a file by

# Pillow allows 1 MB per text chunk or colour profile. Image editors and generators write longer ones.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 1024 * 1024
PngImagePlugin.MAX_TEXT_MEMORY = 128 * 1024 * 1024


def is_image_name(name: str) -> bool:
    """Whether a file name has an ending that counts as an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def may_be_image(start: bytes) -> bool:
    """Whether a file whose first bytes these are may be an image, so that reading on makes sense."""
    return any(_is_accepted(name, start) for name in ENDINGS_BY_FORMAT)


def open_image(data: bytes) -> Image.Image:
    """Open an image without decoding its pixels.

    Raises:
        UnreadableImage: empty, of no accepted format, or with a header that Pillow rejects.
    """
    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters becomes an error
        try:
            return Image.open(io.BytesIO(data), formats=tuple(ENDINGS_BY_FORMAT))
        except Image.DecompressionBombError as error:
            raise UnreadableImage(str(error)) from error
        except Exception as error:  # each of Pillow's formats raises its own errors
            raise UnreadableImage(_describe_rejection(data, error)) from error


def _describe_rejection(data: bytes, error: Exception) -> str:
    """Why Pillow does not open these bytes, in the words of the format that recognises them."""
    for name in ENDINGS_BY_FORMAT:
        if _is_accepted(name, data):
            reason = _find_reason(name, data) or str(error) or type(error).__name__
            return f"cannot be opened as {name} ({len(data)} bytes): {reason}"
    return f"not an image in an accepted format ({len(data)} bytes; accepted: {_ACCEPTED})"


def _find_reason(name: str, data: bytes) -> str | None:
    """The error of one format, which `Image.open` drops when no format opens a file."""
    make_image = Image.OPEN[name][0]
    answer = _ask(name, data)
    if isinstance(answer, str):  # this Pillow was built without the format
        return answer
    try:
        make_image(io.BytesIO(data), "")
    except Exception as error:
        return f"{error}" or type(error).__name__
    return None


def _is_accepted(name: str, start: bytes) -> bool:
    return bool(_ask(name, start))


def _ask(name: str, start: bytes) -> bool | str:
    """Whether a file may be of a format, or why this Pillow cannot read the format."""
    accept = Image.OPEN[name][1]
    try:
        return True if accept is None else accept(start[:_PREFIX_BYTES])
    except (
        IndexError,
        TypeError,
        struct.error,
    ):  # of a file of a few bytes; Pillow's `open` drops them
        return False
