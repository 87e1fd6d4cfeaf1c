"""Stated sizes against headers, and boxes turned with the pixels that an EXIF orientation turns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import geometry, imaging, storage
from pipeline.errors import UnreadableDataset
from pipeline.imaging import Decoding
from pipeline.manifests import AnnotatedObject
from pipeline.sources.options import SourceOptions
from pipeline.sources.sizes import HEADER_BYTES, read_image_header, settle_size

WIDTH, HEIGHT = 120, 90
STORED = (20, 10, 50, 30)
"""The box of the only bright rectangle of the stored image."""
CHECK, APPLY = SourceOptions(check_sizes=True), SourceOptions(exif="apply")


def _write(folder: Path, orientation: int) -> str:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x1, y1, x2, y2 = STORED
    pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = folder / f"{orientation}.png"
    Image.fromarray(pixels).save(path, exif=exif)
    return str(path)


def _find_bright(uri: str) -> tuple[int, ...]:
    pixels = imaging.decode_image(storage.read(uri), Decoding(exif="apply"))
    ys, xs = np.nonzero(pixels[..., 0])
    return (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def _objects(box: Sequence[float]) -> list[AnnotatedObject]:
    x1, y1, x2, y2 = box
    return [AnnotatedObject("dog", x1, y1, x2, y2)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(tmp_path: Path, orientation: int) -> None:
    uri = _write(tmp_path, orientation)
    turned = geometry.turn(np.array([STORED]), orientation, WIDTH, HEIGHT)
    assert tuple(turned[0].tolist()) == _find_bright(uri)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("states", ["displayed", "stored"])
def test_applied_rotations_keep_displayed_boxes_and_turn_stored_ones(
    tmp_path: Path, orientation: int, states: str
) -> None:
    uri = _write(tmp_path, orientation)
    displayed = _find_bright(uri)
    size, box = ((HEIGHT, WIDTH), displayed) if states == "displayed" else ((WIDTH, HEIGHT), STORED)
    settled = settle_size(uri, size, _objects(box), APPLY, "here")
    assert (settled.width, settled.height) == (HEIGHT, WIDTH)
    assert settled.objects == tuple(_objects(displayed))
    assert [r.outcome for r in settled.repairs] == (
        ["turned with its boxes"] if states == "stored" else []
    )


@pytest.mark.parametrize("stated", [(0, 0), (WIDTH, HEIGHT)])
def test_a_rotation_that_no_size_shows_is_counted(tmp_path: Path, stated: tuple[int, int]) -> None:
    uri = _write(tmp_path, 3)
    settled = settle_size(uri, stated, _objects(STORED), APPLY, "here")
    assert settled.objects == tuple(_objects(STORED))
    assert ["taken as displayed" in r.outcome for r in settled.repairs] == [True]


def test_a_rotated_annotation_is_invalid_unless_rotations_are_applied(tmp_path: Path) -> None:
    uri, stated = _write(tmp_path, 6), (HEIGHT, WIDTH)
    box = _find_bright(uri)
    with pytest.raises(
        UnreadableDataset, match=r"annotated as 90x120, stored as 120x90: rotated by"
    ):
        settle_size(uri, stated, _objects(box), CHECK, "here")
    settled = settle_size(uri, stated, _objects(box), SourceOptions(), "here")
    assert (settled.width, settled.height) == stated  # not checked


@pytest.mark.parametrize("stated", [(1200, 900), (60, 45), (140, 90)])
@pytest.mark.parametrize("options", [CHECK, APPLY])
def test_a_size_that_moves_boxes_is_invalid(
    tmp_path: Path, stated: tuple[int, int], options: SourceOptions
) -> None:
    uri = _write(tmp_path, 1)
    with pytest.raises(UnreadableDataset, match=r"annotated as .*x.*, .* as 120x90: resized"):
        settle_size(uri, stated, _objects(STORED), options, "here")


@pytest.mark.parametrize("stated", [(2**31 - 1, 90), (10**6, 10**6)])
def test_a_size_that_no_image_has_is_always_checked(
    tmp_path: Path, stated: tuple[int, int]
) -> None:
    with pytest.raises(UnreadableDataset, match="stored as 120x90: resized"):
        settle_size(_write(tmp_path, 1), stated, _objects(STORED), SourceOptions(), "here")


@pytest.mark.parametrize("stated", [(121, 90), (119, 91)])
def test_rounded_sizes_become_the_header_s(tmp_path: Path, stated: tuple[int, int]) -> None:
    settled = settle_size(_write(tmp_path, 1), stated, _objects(STORED), CHECK, "here")
    assert (settled.width, settled.height, settled.repairs) == (WIDTH, HEIGHT, ())


def test_a_wrong_size_moves_no_boxes_if_there_are_none_or_they_disprove_it(tmp_path: Path) -> None:
    uri = _write(tmp_path, 1)
    for objects in ([], _objects((10, 10, 110, 80))):
        settled = settle_size(uri, (50, 40), objects, CHECK, "here")
        assert (settled.width, settled.height) == (WIDTH, HEIGHT)
        assert ["wrong size" in r.outcome for r in settled.repairs] == [True]
    with pytest.raises(UnreadableDataset, match="resized"):  # a pixel beyond disproves nothing
        settle_size(uri, (50, 40), _objects((10, 10, 51, 40)), SourceOptions(), "here")


def test_only_files_that_may_be_images_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (7, 8)).save(buffer, "JPEG")
    plain = buffer.getvalue()
    comment = b"\xff\xfe\xff\xff" + b"x" * (0xFFFF - 2)
    (tmp_path / "late.jpg").write_bytes(plain[:2] + 80 * comment + plain[2:])
    header = read_image_header(f"{tmp_path}/late.jpg")
    assert (header.width, header.height) == (7, 8)
    (tmp_path / "large.jpg").write_bytes(b"text" * HEADER_BYTES[1])
    monkeypatch.setattr(storage, "read", lambda uri, _limit: pytest.fail(f"{uri} was read whole"))
    with pytest.raises(UnreadableDataset, match=r"large\.jpg: "):
        read_image_header(f"{tmp_path}/large.jpg")
