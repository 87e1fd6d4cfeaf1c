"""Images of all modes and formats, damaged or not."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pipeline import imaging
from pipeline.imaging import ImageHeader
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.target import Target

_WIDTH, _HEIGHT = 40, 30
_FORMATS = {
    "jpeg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "RGBA", "P", "L", "LA", "1", "I;16"),
    "tiff": ("RGB", "L", "F", "I", "I;16", "CMYK"),
    "gif": ("P",),
    "bmp": ("RGB", "L"),
    "webp": ("RGB", "RGBA"),
    "ppm": ("RGB", "L"),
    "eps": ("RGB",),
    "ico": ("RGBA",),
    "tga": ("RGB",),
}
_PROGRAMS = (b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")
"""How files begin that are programs to draw an image."""


@dataclass(frozen=True)
class _Answer:
    """An image as the project decodes it."""

    header: ImageHeader
    pixels: NDArray[np.uint8]


@cache
def _encode(file_format: str, mode: str) -> bytes:
    """A gradient: every way to read it well gives more than one colour."""
    ramp = np.linspace(0, 1, _WIDTH * _HEIGHT).reshape(_HEIGHT, _WIDTH)
    if mode in ("F", "I", "I;16"):
        kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
        peak = {"F": 1, "I": 60_000, "I;16": 4095}[mode]
        image = Image.fromarray((ramp * peak).astype(kinds[mode]))
    else:
        image = Image.fromarray((ramp * 255).astype(np.uint8)).convert("RGB").convert(mode)
    buffer = io.BytesIO()
    options = {}
    if file_format == "png":
        text = PngImagePlugin.PngInfo()
        text.add_text("comment", "x" * 2000, zip=True)
        options["pnginfo"] = text
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _write(folder: Path, random: Random) -> str:
    file_format = random.choice(list(_FORMATS))
    mode = random.choice(_FORMATS[file_format])
    data, change = _encode(file_format, mode), "valid"
    if random.random() < 0.85:
        data, change = mutate_bytes(data, random)
    (folder / "image").write_bytes(data)
    return f"{file_format} {mode}, {change}"


def _read(folder: Path) -> _Answer:
    data = (folder / "image").read_bytes()
    return _Answer(imaging.read_header(data), imaging.decode_image(data))


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    data, pixels = (folder / "image").read_bytes(), answer.pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"the pixels are {pixels.dtype} of shape {pixels.shape}"
    if pixels.shape[:2] != (answer.header.height, answer.header.width):
        return f"the header says {answer.header}, the pixels are {pixels.shape}"
    if not 1 <= answer.header.orientation <= 8:
        return f"the orientation is {answer.header.orientation}"
    if data.startswith(_PROGRAMS):
        return f"a program that draws an image is accepted: {data[:12]!r}"
    is_whole = any(
        data == _encode(name, mode) for name, modes in _FORMATS.items() for mode in modes
    )
    if is_whole and (pixels.min() == pixels.max() or pixels.shape[:2] != (_HEIGHT, _WIDTH)):
        return f"a gradient is decoded to the one value {pixels.min()}, shape {pixels.shape}"
    return None


TARGETS = (Target("image", _write, _read, _find_fault),)
