"""Images: read the header, decode, resize, draw. The one place that touches image bytes.

A decoded image is uint8 RGB `(H, W, 3)` in the orientation of the stored pixels: an EXIF rotation is
not applied, because annotations refer to stored pixels. Palette, grey, CMYK and 16-bit images are
converted, an alpha channel is dropped, an animation gives its first frame.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import UnreadableImage

MAX_PIXELS = 100_000_000  # larger images are rejected: decoding one takes 300 MB or more

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""Lower-case file endings that count as images when a folder is listed."""

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels from an image's header, without decoding it.

    Raises:
        UnreadableImage: the bytes are not an image.
    """
    with _open(data) as canvas:
        return canvas.size


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image's bytes to uint8 RGB `(H, W, 3)`.

    Raises:
        UnreadableImage: empty, truncated, corrupt, of an unknown format, or over `max_pixels`.
    """
    with _open(data) as canvas:
        width, height = canvas.size
        if width * height > max_pixels:
            raise UnreadableImage(f"{width}x{height} pixels are over the limit of {max_pixels}")
        try:
            if canvas.mode in _SIXTEEN_BIT:
                grey = np.clip(np.asarray(canvas).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            if "transparency" in canvas.info:
                # a palette with alpha: convert to RGBA first, whose alpha channel is then dropped
                canvas = canvas.convert("RGBA")  # noqa: PLW2901
            return np.array(canvas.convert("RGB"))
        except Exception as error:  # each of Pillow's formats raises its own errors
            raise UnreadableImage(f"cannot be decoded: {error}") from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableImage("the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise UnreadableImage(str(error)) from error
    except Exception as error:  # each of Pillow's formats raises its own errors
        raise UnreadableImage(f"not an image in a known format ({len(data)} bytes)") from error


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize `(H, W, 3)` to `(height, width, 3)`: bilinear with antialiasing when shrinking."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 `(H, W, 3)` image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_jpeg(image: NDArray[np.uint8], quality: int = 92) -> bytes:
    """Encode a uint8 `(H, W, 3)` image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    captions: Sequence[str] | None = None,
    colour_keys: Sequence[int] | None = None,
    line_width: int = 2,
) -> NDArray[np.uint8]:
    """Draw `boxes` `(N, 4)` on a copy of `image` `(H, W, 3)`, each in the colour of its key.

    Args:
        image: uint8 RGB.
        boxes: x1, y1, x2, y2 in pixels.
        captions: one text per box, drawn at its top-left corner, inside the image.
        colour_keys: one integer per box, such as its label_id; equal keys get equal colours.
        line_width: in pixels.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=12)
    for index, (x1, y1, x2, y2) in enumerate(np.asarray(boxes, dtype=float).reshape(-1, 4)):
        key = colour_keys[index] if colour_keys is not None else index
        colour = _PALETTE[key % len(_PALETTE)]
        right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
        pen.rectangle((x1, y1, right, bottom), outline=colour, width=line_width)
        if captions is not None:
            last = canvas.width - pen.textlength(captions[index], font=font) - 2
            left = max(2, min(x1 + 2, last))  # keeps the caption inside the image
            top = max(0, y1 - 14 if y1 >= 14 else y1)
            place = pen.textbbox((left, top), captions[index], font=font)
            pen.rectangle((place[0] - 2, place[1] - 1, place[2] + 2, place[3] + 1), fill=colour)
            pen.text((left, top), captions[index], fill="white", font=font)
    return np.asarray(canvas)


def draw_dashed_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.floating], dash: int = 6
) -> NDArray[np.uint8]:
    """Draw `boxes` `(N, 4)` on a copy of `image` `(H, W, 3)` in black and white dashes of `dash` pixels.

    They are visible on any image and differ from the coloured boxes of `draw_boxes`.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=float).reshape(-1, 4):
        right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
        pen.rectangle((x1, y1, right, bottom), outline="black")
        for x in np.arange(x1, right, 2 * dash):
            end = min(x + dash, right)
            pen.line((x, y1, end, y1), fill="white")
            pen.line((x, bottom, end, bottom), fill="white")
        for y in np.arange(y1, bottom, 2 * dash):
            end = min(y + dash, bottom)
            pen.line((x1, y, x1, end), fill="white")
            pen.line((right, y, right, end), fill="white")
    return np.asarray(canvas)


def arrange_sheet(
    images: Sequence[NDArray[np.uint8]], columns: int, cell: int = 320
) -> NDArray[np.uint8]:
    """Arrange images on a white sheet, each scaled to fit a square of `cell` pixels."""
    rows = -(-len(images) // columns)
    canvas = np.full((rows * cell, columns * cell, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        factor = (cell - 8) / max(image.shape[:2])
        width, height = (max(1, round(side * factor)) for side in image.shape[1::-1])
        y, x = (index // columns) * cell + 4, (index % columns) * cell + 4
        canvas[y : y + height, x : x + width] = resize(image, width, height)
    return canvas


def is_image_name(name: str) -> bool:
    """Whether a file name has an ending that counts as an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES
