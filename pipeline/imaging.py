"""Images: read the header, decode, resize, draw. The one place that touches image bytes.

A decoded image is uint8 RGB `(H, W, 3)` in the orientation of the stored pixels: an EXIF rotation is
not applied unless the dataset's manifest says that its boxes refer to the displayed image. Other modes
are converted (`pixel_values`), an animation gives its first frame.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFont

from pipeline.errors import UnreadableImage
from pipeline.image_formats import open_image
from pipeline.pixel_values import convert_to_rgb

MAX_PIXELS = 100_000_000
"""Larger images are rejected before they are decoded: one takes up to 1 GB."""

MAX_FILE_BYTES = 512_000_000
"""Larger files are not read as images: one would fill the memory of its worker."""

Exif = Literal["ignore", "apply"]
"""Whether jobs decode images as stored, or turn them by their EXIF orientation as viewers show them."""
Truncated = Literal["reject", "accept"]
"""Whether a JPEG that ends early is unreadable, or grey where its pixels are missing."""

_END_OF_JPEG = b"\xff\xd9"
_OUTSIDE = 16.0
"""Pixels outside an image at which lines, of any width that is drawn, are not visible."""
_LONGEST_CAPTION = 200
_PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")


@dataclass(frozen=True)
class Decoding:
    """How the images of a dataset are decoded: a fact of its manifest, because boxes refer to it."""

    exif: Exif = "ignore"
    truncated: Truncated = "reject"


AS_STORED = Decoding()
"""The pixels as stored; a truncated image is unreadable."""


def read_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels from an image's header, without decoding it.

    Raises:
        UnreadableImage: the bytes are not an image.
    """
    with open_image(data) as canvas:
        return canvas.size


@dataclass(frozen=True)
class ImageHeader:
    """What an image's header says: the size of its stored pixels, and how viewers turn them."""

    width: int
    height: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 if there is none, it is invalid, or the decoder itself applies it."""

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height as viewers show the image."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes) -> ImageHeader:
    """Read size and EXIF orientation, without decoding the image.

    Raises:
        UnreadableImage: the bytes are not an image.
    """
    with open_image(data) as canvas:
        return ImageHeader(*canvas.size, _read_orientation(canvas))


def _read_orientation(canvas: Image.Image) -> int:
    if canvas.format == "TIFF":  # Pillow turns its pixels itself
        return 1
    try:
        # PNG's own method decodes the whole image to look for EXIF behind the pixels.
        value = Image.Image.getexif(canvas).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata are no reason to reject the image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode_image(
    data: bytes,
    decoding: Decoding = AS_STORED,
    max_pixels: int = MAX_PIXELS,
    *,
    enough: int | None = None,
) -> NDArray[np.uint8]:
    """Decode an image's bytes to uint8 RGB `(H, W, 3)`.

    Args:
        data: the file.
        decoding: whether to turn the image by its EXIF orientation, and to accept a truncated JPEG.
        max_pixels: the largest image to decode.
        enough: a JPEG may come out at half, a quarter or an eighth of its size, which is much quicker, if its
            longer side still has so many pixels; None keeps its size.

    Raises:
        UnreadableImage: empty, truncated, corrupt, of no accepted format, with pixels of unknown range,
            or over `max_pixels`.
    """
    if decoding.truncated == "accept" and data.startswith(b"\xff\xd8"):
        data += (
            _END_OF_JPEG  # as libjpeg does at the end of a file; it fills what is missing with grey
        )
    with open_image(data) as canvas:
        width, height = canvas.size
        if width * height > max_pixels:
            raise UnreadableImage(f"{width}x{height} pixels are over the limit of {max_pixels}")
        orientation = _read_orientation(canvas) if decoding.exif == "apply" else 1
        if enough is not None:
            share = enough / max(width, height)
            canvas.draft(canvas.mode, (round(width * share), round(height * share)))
        try:
            image = convert_to_rgb(canvas)
        except UnreadableImage:
            raise
        except Exception as error:  # each of Pillow's formats raises its own errors
            raise UnreadableImage(f"cannot be decoded: {error}") from error
    return _turn(image, orientation)


def _turn(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The image `(H, W, 3)` as viewers show one of this EXIF orientation."""
    if orientation in (2, 3, 7, 8):  # stored right is displayed left, or at the top or bottom
        image = image[:, ::-1]
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image)


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
    for index, (x1, y1, x2, y2) in enumerate(_clip_for_drawing(boxes, canvas)):
        if np.isnan(x1):
            continue
        key = colour_keys[index] if colour_keys is not None else index
        colour = _PALETTE[key % len(_PALETTE)]
        right, bottom = max(x1, x2 - 1), max(y1, y2 - 1)
        pen.rectangle((x1, y1, right, bottom), outline=colour, width=line_width)
        if captions is not None:
            caption = _fit_caption(captions[index])
            last = canvas.width - pen.textlength(caption, font=font) - 2
            left = max(2, min(x1 + 2, last))  # keeps the caption inside the image
            top = max(0, y1 - 14 if y1 >= 14 else y1)
            place = pen.textbbox((left, top), caption, font=font)
            pen.rectangle((place[0] - 2, place[1] - 1, place[2] + 2, place[3] + 1), fill=colour)
            pen.text((left, top), caption, fill="white", font=font)
    return np.asarray(canvas)


def _clip_for_drawing(boxes: NDArray[np.floating], canvas: Image.Image) -> NDArray[np.float64]:
    """Boxes `(N, 4)` clipped a little outside the canvas, where no line shows; NaN if a corner is NaN.

    Pillow draws the whole outline of a box, however far it reaches outside.
    """
    corners = np.asarray(boxes, dtype=float).reshape(-1, 4)
    limits = np.array([canvas.width, canvas.height] * 2) + _OUTSIDE
    clipped: NDArray[np.float64] = np.clip(corners, -_OUTSIDE, limits)
    clipped[np.isnan(corners).any(axis=1)] = np.nan
    return clipped


def _fit_caption(text: str) -> str:
    """One line that Pillow can draw: without line breaks and control characters, and not endless."""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_CAPTION])


def draw_dashed_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.floating], dash: int = 6
) -> NDArray[np.uint8]:
    """Draw `boxes` `(N, 4)` on a copy of `image` `(H, W, 3)` in black and white dashes of `dash` pixels.

    They are visible on any image and differ from the coloured boxes of `draw_boxes`.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    for x1, y1, x2, y2 in _clip_for_drawing(boxes, canvas):
        if np.isnan(x1):
            continue
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
