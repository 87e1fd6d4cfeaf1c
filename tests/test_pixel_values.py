from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import imaging, pixel_values
from pipeline.errors import UnreadableImage


def _encode(values: NDArray[np.generic], kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind, **options)
    return buffer.getvalue()


def _encode_deep_png(rgb: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits per channel, which Pillow reads and does not write."""
    height, width = rgb.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _encode_tiff(packed: bytes, width: int, bits: int, photometric: int = 1) -> bytes:
    """A TIFF of one row of grey pixels with `bits` bits each."""
    tags = [
        *((256, 3, 1, width), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1)),
        *((262, 3, 1, photometric), (273, 4, 1, 122), (277, 3, 1, 1), (278, 3, 1, 1)),
        (279, 4, 1, len(packed)),
    ]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + bytes(4) + packed


def test_twelve_bits_that_a_tiff_states_fill_the_range() -> None:
    packed = bytes([0xFF, 0xF8, 0x00, 0x01, 0x00, 0x00])  # 4095, 2048, 16, 0
    decoded = imaging.decode_image(_encode_tiff(packed, 4, bits=12))
    np.testing.assert_array_equal(decoded[0, :, 1], [255, 128, 1, 0])


def test_zero_is_white_where_a_tiff_says_so() -> None:
    packed = np.array([0, 0x80FF, 0xFFFF], "<u2").tobytes()
    for photometric, expected in ((1, [0, 128, 255]), (0, [255, 127, 0])):
        decoded = imaging.decode_image(_encode_tiff(packed, 3, 16, photometric))
        np.testing.assert_array_equal(decoded[0, :, 0], expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_sixteen_bits_that_hold_twelve_are_rejected(kind: str) -> None:
    dark = np.full((8, 8), 4095, np.uint16)
    with pytest.raises(UnreadableImage, match="16-bit pixels are all below 4096 of 65535"):
        imaging.decode_image(_encode(dark, kind))
    assert (imaging.decode_image(_encode(dark + 1, kind)) == 16).all()
    assert not imaging.decode_image(_encode(np.zeros((8, 8), np.uint16), kind)).any()


def test_deep_colours_follow_the_same_rule() -> None:
    rgb = np.zeros((4, 5, 3), np.uint16)
    rgb[..., 1] = 4095
    with pytest.raises(UnreadableImage, match="16-bit pixels are all below 4096"):
        imaging.decode_image(_encode_deep_png(rgb))
    rgb[0, 0] = (0x1234, 0xFFFF, 0x0080)
    decoded = imaging.decode_image(_encode_deep_png(rgb))
    np.testing.assert_array_equal(decoded[0, 0], [0x12, 0xFF, 0])
    np.testing.assert_array_equal(decoded[1, 1], [0, 15, 0])


def test_a_pgm_states_its_range() -> None:
    data = b"P5 3 1 4095\n" + np.array([0, 2048, 4095], ">u2").tobytes()
    np.testing.assert_array_equal(imaging.decode_image(data)[0, :, 2], [0, 128, 255])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "float pixels have no known range"),
        (np.full((3, 4), 65535, np.float32), "float pixels have no known range"),
        (np.full((3, 4), 200, np.int32), "integer pixels have no known range"),
    ],
)
def test_pixels_without_a_range_are_rejected(values: NDArray[np.generic], message: str) -> None:
    with pytest.raises(UnreadableImage, match=message):
        imaging.decode_image(_encode(values, "TIFF"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "CMYK", "I;16"])
def test_strips_make_the_same_image(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        canvas = Image.fromarray(rng.integers(0, 65536, (37, 29), dtype=np.uint16))
    else:
        canvas = Image.fromarray(rng.integers(0, 256, (37, 29, 3), dtype=np.uint8)).convert(mode)
    buffer = io.BytesIO()
    canvas.save(buffer, format="TIFF" if mode == "CMYK" else "PNG")
    whole = imaging.decode_image(buffer.getvalue())
    monkeypatch.setattr(pixel_values, "_STRIP_PIXELS", 29 * 5)
    np.testing.assert_array_equal(imaging.decode_image(buffer.getvalue()), whole)
    if mode in ("RGB", "RGBA"):
        np.testing.assert_array_equal(whole, np.asarray(canvas)[..., :3])
