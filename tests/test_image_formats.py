from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import image_formats, imaging
from pipeline.errors import UnreadableImage


def _encode(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 30, 60)).save(buffer, format=kind)
    return buffer.getvalue()


def _insert_chunks(*chunks: bytes) -> bytes:
    """A PNG with chunks between its header and its pixels."""
    data = _encode("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def _make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_names_of_images_are_recognised() -> None:
    for name in ("a/B.JPEG", "a.jfif", "b.JP2", "c.avif", "d.webp", "e.x.tif"):
        assert image_formats.is_image_name(name), name
    for name in ("a/jpg", "a.xml", "a.eps", "a.jpg.txt"):
        assert not image_formats.is_image_name(name), name


@pytest.mark.parametrize("kind", sorted(image_formats.ENDINGS_BY_FORMAT))
def test_every_accepted_format_is_opened(kind: str) -> None:
    data = _encode(kind)
    assert imaging.read_size(data) == (20, 10)
    assert image_formats.may_be_image(data[:32])
    assert not image_formats.may_be_image(b"PK\x03\x04" + bytes(28))


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PCX", "EPS"])
def test_other_formats_are_rejected_by_content(kind: str) -> None:
    with pytest.raises(UnreadableImage, match="not an image in an accepted format"):
        imaging.read_size(_encode(kind))


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow gives EPS to Ghostscript, whatever the file is named."""
    called = tmp_path / "called"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {called}\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for read in (imaging.decode_image, imaging.read_header):
        with pytest.raises(UnreadableImage):
            read(eps)
    assert not called.exists()


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iCCP", b"ICC\0\0" + zlib.compress(bytes(3_000_000))),
        (b"tEXt", b"workflow\0" + b"z" * 3_000_000),
    ],
    ids=lambda chunk: chunk[0].decode(),
)
def test_a_png_with_a_long_text_or_profile_is_read(chunk: tuple[bytes, bytes]) -> None:
    decoded = imaging.decode_image(_insert_chunks(_make_chunk(*chunk)))
    np.testing.assert_array_equal(decoded[0, 0], [200, 30, 60])


def test_a_text_that_would_fill_memory_is_rejected_in_pillows_words() -> None:
    bomb = _make_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000)))
    with pytest.raises(UnreadableImage, match=r"cannot be opened as PNG \(.*bytes\): .*MAX_TEXT"):
        imaging.decode_image(_insert_chunks(bomb))
    texts = [
        _make_chunk(b"zTXt", b"k%d\0\0" % number + zlib.compress(bytes(15_000_000)))
        for number in range(10)
    ]
    with pytest.raises(UnreadableImage, match="Too much memory used in text chunks"):
        imaging.decode_image(_insert_chunks(*texts))


def test_an_image_that_a_format_rejects_is_called_one_of_that_format() -> None:
    rgb = np.zeros((4, 4, 3), np.float32)
    header = struct.pack("<2sHI", b"II", 42, 8)
    tags = [
        *((256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 32), (262, 3, 1, 2), (277, 3, 1, 3)),
        *((273, 4, 1, 122), (278, 3, 1, 4), (279, 4, 1, rgb.nbytes), (339, 3, 1, 3)),
    ]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    with pytest.raises(
        UnreadableImage, match=r"cannot be opened as TIFF \(.*\): unknown pixel mode"
    ):
        imaging.read_size(header + directory + rgb.tobytes())


@pytest.mark.parametrize("data", [b"1", b"ab", b"\xff\xd8", b"\x00\x00\x01"])
def test_a_file_of_a_few_bytes_is_no_image(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        imaging.read_header(data)
    assert not image_formats.may_be_image(b"1")
