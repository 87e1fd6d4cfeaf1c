from __future__ import annotations

import io
import struct
import zlib
from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from pipeline import geometry, imaging
from pipeline.errors import UnreadableImage
from pipeline.imaging import Decoding


def _gradient(width: int = 8, height: int = 6) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, width).astype(np.uint8)
    image[..., 1] = np.linspace(0, 200, height).astype(np.uint8)[:, None]
    return image


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def test_a_png_keeps_all_pixels() -> None:
    image = _gradient()
    data = imaging.encode_png(image)
    assert imaging.read_size(data) == (8, 6)
    np.testing.assert_array_equal(imaging.decode_image(data), image)


def test_a_jpeg_keeps_pixels_nearly() -> None:
    image = _gradient(64, 48)
    decoded = imaging.decode_image(imaging.encode_jpeg(image, quality=95))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - image).mean() < 4


def test_cmyk_becomes_rgb() -> None:
    data = _encode(Image.fromarray(_gradient(64, 48)).convert("CMYK"), "JPEG", quality=95)
    decoded = imaging.decode_image(data)
    assert decoded.shape == (48, 64, 3)
    assert np.abs(decoded.astype(int) - _gradient(64, 48)).mean() < 12


def test_a_palette_becomes_rgb() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(
        imaging.decode_image(_encode(image, "PNG")), [[[10, 20, 30], [40, 50, 60]]]
    )


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    data = _encode(image, "PNG", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(imaging.decode_image(data), [[[10, 20, 30], [40, 50, 60]]])


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "RGB"])
def test_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
    decoded = imaging.decode_image(_encode(image, "PNG"))
    assert decoded.shape == (2, 3, 3)
    assert (decoded == 255).all()


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    np.testing.assert_array_equal(imaging.decode_image(_encode(image, "PNG")), [[[10, 20, 30]]])


def test_sixteen_bits_keep_the_high_byte() -> None:
    grey = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = imaging.decode_image(_encode(Image.fromarray(grey), kind))
        np.testing.assert_array_equal(decoded[0, :, 0], [0, 0, 1, 128, 255])
        assert decoded.shape == (1, 5, 3)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = _encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(imaging.decode_image(data)[0, 0], [255, 0, 0])


def test_an_exif_rotation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers turn the image by 90 degrees
    data = _encode(Image.fromarray(_gradient(64, 48)), "JPEG", exif=exif)
    assert imaging.read_size(data) == (64, 48)
    assert imaging.decode_image(data).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_rotation_is_applied_on_demand(kind: str, orientation: int) -> None:
    """As Pillow itself turns an image; header, pixels and boxes agree about it."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[8:24, 8:40] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(Image.fromarray(image), kind, exif=exif)
    turned = imaging.decode_image(data, Decoding(exif="apply"))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(turned, np.asarray(expected))
    header = imaging.read_header(data)
    assert header.displayed_size == (turned.shape[1], turned.shape[0])
    if kind != "TIFF":  # Pillow turns the pixels of a TIFF whoever asks
        rows, columns = np.nonzero(turned[..., 0] > 127)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert geometry.turn(np.array([[8, 8, 40, 24]]), orientation, 64, 48).tolist() == [box]


@pytest.mark.parametrize("missing", [2, 20, 400])
def test_a_jpeg_without_its_end_is_read_on_demand(missing: int) -> None:
    """Rows that are there stay as they are; those that are missing become grey."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    data = imaging.encode_jpeg(noise)
    with pytest.raises(UnreadableImage, match="truncated"):
        imaging.decode_image(data[:-missing])
    accepted = imaging.decode_image(data[:-missing], Decoding(truncated="accept"))
    whole = imaging.decode_image(data)
    np.testing.assert_array_equal(accepted[:40], whole[:40])
    assert (accepted[-8:, -8:] == whole[-8:, -8:]).all() == (missing == 2)
    np.testing.assert_array_equal(imaging.decode_image(data, Decoding(truncated="accept")), whole)


def test_a_jpeg_without_pixels_stays_unreadable() -> None:
    header = imaging.encode_jpeg(_gradient(64, 48))[:200]
    with pytest.raises(UnreadableImage):
        imaging.decode_image(header, Decoding(truncated="accept"))


def test_an_image_may_be_one_pixel() -> None:
    assert imaging.decode_image(imaging.encode_jpeg(np.zeros((1, 1, 3), np.uint8))).shape == (
        1,
        1,
        3,
    )


def test_decoded_images_are_writable() -> None:
    for data in (imaging.encode_png(_gradient()), imaging.encode_jpeg(_gradient())):
        imaging.decode_image(data)[0, 0] = 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (
            b"just a text\n" * 9,
            r"not an image in an accepted format \(108 bytes; accepted: JPEG, PNG",
        ),
        (b"\xff\xd8\xff", r"cannot be opened as JPEG \(3 bytes\): "),
    ],
)
def test_files_that_are_not_images_are_rejected(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableImage, match=message):
        imaging.decode_image(data)
    with pytest.raises(UnreadableImage, match=message):
        imaging.read_size(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG2000", "TIFF", "WEBP"])
def test_a_damaged_file_in_any_format_is_unreadable_or_an_image(kind: str) -> None:
    """Each of Pillow's formats raises its own errors; all must become UnreadableImage."""
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {kind}")
    data = _encode(Image.fromarray(_gradient(32, 24)), kind)
    unreadable = 0
    for place in range(0, len(data), max(1, len(data) // 150)):
        damaged = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        try:
            assert imaging.decode_image(damaged).ndim == 3
        except UnreadableImage:
            unreadable += 1
    assert unreadable


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_truncated_files_are_unreadable(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    data = _encode(Image.fromarray(noise), kind)
    assert imaging.decode_image(data).shape == (50, 60, 3)
    for length in (len(data) // 2, 40, 12):
        with pytest.raises(UnreadableImage):
            imaging.decode_image(data[:length])


def test_the_pixel_cap_applies_before_decoding() -> None:
    data = imaging.encode_png(np.zeros((20, 30, 3), np.uint8))
    assert imaging.decode_image(data, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(UnreadableImage, match="30x20 pixels are over the limit of 599"):
        imaging.decode_image(data, max_pixels=599)


def test_a_decompression_bomb_is_rejected_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    data = bytearray(imaging.encode_png(np.zeros((1, 1, 3), np.uint8)))
    data[16:24] = struct.pack(">II", 20_000, 20_000)  # a false size in the header
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(UnreadableImage):
        imaging.decode_image(bytes(data))
    assert not [w for w in recwarn.list if w.category is Image.DecompressionBombWarning]


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_on_demand() -> None:
    ramp = np.tile(np.arange(800, dtype=np.uint16)[:, None] // 4, (1, 1200)).astype(np.uint8)
    data = imaging.encode_jpeg(np.stack([ramp] * 3, axis=2))
    reduced = imaging.decode_image(data, enough=300)
    assert reduced.shape == (200, 300, 3)
    assert np.abs(reduced[:, 150, 0].astype(int) - np.arange(200)).max() <= 3
    assert imaging.decode_image(data, enough=301).shape == (400, 600, 3)
    assert imaging.decode_image(data, enough=601).shape == (800, 1200, 3)
    png = imaging.encode_png(np.zeros((40, 60, 3), np.uint8))
    assert imaging.decode_image(png, enough=10).shape == (40, 60, 3)


def test_resize_gives_the_requested_size() -> None:
    image = _gradient(40, 20)
    assert imaging.resize(image, 10, 7).shape == (7, 10, 3)
    np.testing.assert_array_equal(imaging.resize(image, 40, 20), image)
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert (imaging.resize(flat, 30, 4) == 77).all()


def test_drawn_boxes_end_at_the_edges_of_the_boxes() -> None:
    blank = np.zeros((20, 30, 3), np.uint8)
    drawn = imaging.draw_boxes(blank, np.array([[5, 4, 15, 12]]), line_width=1)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (5, 15, 4, 12)
    assert not blank.any()
    captioned = imaging.draw_boxes(blank, np.array([[5, 4, 15, 12]]), ["dog"], [3])
    assert captioned.any()


def test_equal_keys_get_equal_colours() -> None:
    blank = np.zeros((20, 60, 3), np.uint8)
    rows = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    drawn = imaging.draw_boxes(blank, rows, colour_keys=[4, 4, 5])
    assert (drawn[0, 0] == drawn[0, 20]).all()
    assert (drawn[0, 0] != drawn[0, 40]).any()


def test_a_sheet_holds_all_images() -> None:
    images = [np.full((10, 30, 3), value, np.uint8) for value in (0, 60, 120)]
    sheet = imaging.arrange_sheet(images, columns=2, cell=50)
    assert sheet.shape == (100, 100, 3)
    assert {0, 60, 120} <= set(np.unique(sheet).tolist())


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 1e300, 9],
        [0, 0, np.inf, 9],
        [-np.inf, -np.inf, np.inf, np.inf],
        [-1e9, -1e9, 1e9, 1e9],
        [0, 0, 1e9, 1e9],
    ],
)
def test_boxes_of_any_size_are_drawn_at_once(box: list[float]) -> None:
    blank = np.zeros((40, 60, 3), np.uint8)
    started = perf_counter()
    drawn, dashed = (
        imaging.draw_boxes(blank, np.array([box])),
        imaging.draw_dashed_boxes(blank, np.array([box])),
    )
    assert perf_counter() - started < 2
    has_edge_inside = box[1] == 0
    assert bool(drawn.any()) == bool(dashed.any()) == has_edge_inside


def test_a_box_that_reaches_outside_is_drawn_where_it_is_inside() -> None:
    blank = np.zeros((40, 60, 3), np.uint8)
    drawn = imaging.draw_boxes(blank, np.array([[5, 4, 1e9, 30]]), line_width=1)
    assert drawn[4, 5:].any(axis=1).all()
    assert drawn[29, 5:].any(axis=1).all()
    assert not drawn[5:29, 6:].any()


def test_a_box_without_numbers_is_not_drawn() -> None:
    blank = np.zeros((40, 60, 3), np.uint8)
    boxes = np.array([[5, 5, np.nan, 20]])
    assert not imaging.draw_boxes(blank, boxes, ["a"]).any()
    assert not imaging.draw_dashed_boxes(blank, boxes).any()


@pytest.mark.parametrize("caption", ["a\nb 0.50", "a\r\n\x1b[31mb", "\x00", "x" * 100_000, ""])
def test_any_caption_is_drawn_in_one_line(caption: str) -> None:
    blank = np.zeros((60, 90, 3), np.uint8)
    drawn = imaging.draw_boxes(blank, np.array([[1, 30, 50, 58]]), [caption])
    assert not drawn[:10].any()
    assert drawn.any()


def test_the_header_of_a_png_is_read_without_decoding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow looks for EXIF behind the pixels otherwise, and a small file may hold many."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20)).save(buffer, "PNG", exif=exif)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert imaging.read_header(buffer.getvalue()).orientation == 6
    plain = io.BytesIO()
    Image.new("RGB", (30, 20)).save(plain, "PNG")
    assert imaging.read_header(plain.getvalue()) == imaging.ImageHeader(30, 20, 1)
