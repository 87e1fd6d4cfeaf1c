"""Images of every kind among ordinary ones, through propose and detect: each gets one row."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import shards
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.engine.propose.run import run_proposals
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import write_random_checkpoint

pytestmark = pytest.mark.usefixtures("ray_cluster")

OPTIONS = RunOptions(shard_size=9, max_failed_fraction=1)


def draw_rectangle(width: int = 80, height: int = 60) -> Image.Image:
    """Noise with a rectangle, which proposals find where there is room."""
    rng = np.random.default_rng(width * height)
    image = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (200, 30, 60)
    return Image.fromarray(image)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def encode_rotated() -> bytes:
    """Stored as 80x60 with the note that a viewer should turn it."""
    exif = Image.Exif()
    exif[274] = 6
    return encode(draw_rectangle(), "JPEG", exif=exif)


def encode_animated() -> bytes:
    frames = [draw_rectangle().convert("P"), Image.new("P", (80, 60))]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def encode_sixteen_bit() -> bytes:
    return encode(
        Image.fromarray(np.asarray(draw_rectangle().convert("L")).astype(np.uint16) * 257), "PNG"
    )


def encode_twelve_bit() -> bytes:
    """The low 12 of 16 bits, without a word about it."""
    grey = np.asarray(draw_rectangle().convert("L")).astype(np.uint16)
    return encode(Image.fromarray(grey * 16), "PNG")


def encode_float() -> bytes:
    return encode(
        Image.fromarray(np.asarray(draw_rectangle().convert("L")) / np.float32(255)), "TIFF"
    )


def encode_spoiled() -> bytes:
    """A PNG with a bit flipped in its pixels."""
    data = bytearray(encode(draw_rectangle(), "PNG"))
    data[len(data) // 2] ^= 0x10
    return bytes(data)


def encode_blank_avif() -> bytes:
    """Its pixels are zeros, for which its decoder has an error of its own kind."""
    data = encode(draw_rectangle(), "AVIF")
    start = data.index(b"mdat") + 4
    return data[:start] + bytes(len(data) - start)


READABLE: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "ordinary.png": (lambda: encode(draw_rectangle(), "PNG"), (80, 60)),
    "ordinary.jpg": (lambda: encode(draw_rectangle(), "JPEG"), (80, 60)),
    "progressive.jpg": (lambda: encode(draw_rectangle(), "JPEG", progressive=True), (80, 60)),
    "cmyk.jpg": (lambda: encode(draw_rectangle().convert("CMYK"), "JPEG"), (80, 60)),
    "grey.jpg": (lambda: encode(draw_rectangle().convert("L"), "JPEG"), (80, 60)),
    "palette.png": (lambda: encode(draw_rectangle().convert("P"), "PNG"), (80, 60)),
    "bilevel.png": (lambda: encode(draw_rectangle().convert("1"), "PNG"), (80, 60)),
    "sixteen-bit.png": (encode_sixteen_bit, (80, 60)),
    "rgba.png": (lambda: encode(draw_rectangle().convert("RGBA"), "PNG"), (80, 60)),
    "la.png": (lambda: encode(draw_rectangle().convert("LA"), "PNG"), (80, 60)),
    "animated.gif": (encode_animated, (80, 60)),
    "rotated.jpg": (encode_rotated, (80, 60)),
    "image.webp": (lambda: encode(draw_rectangle(), "WEBP"), (80, 60)),
    "image.bmp": (lambda: encode(draw_rectangle(), "BMP"), (80, 60)),
    "image.tif": (lambda: encode(draw_rectangle(), "TIFF"), (80, 60)),
    "1x1.png": (lambda: encode(draw_rectangle(1, 1), "PNG"), (1, 1)),
    "1x500.png": (lambda: encode(draw_rectangle(1, 500), "PNG"), (1, 500)),
    "5000x3.png": (lambda: encode(draw_rectangle(5000, 3), "PNG"), (5000, 3)),
    "misnamed.jpg": (lambda: encode(draw_rectangle(), "PNG"), (80, 60)),
    "last.png": (lambda: encode(draw_rectangle(), "PNG"), (80, 60)),
}
UNREADABLE: dict[str, tuple[Callable[[], bytes | None], str, str]] = {
    "zero.jpg": (lambda: b"", "decode", "the file is empty (0 bytes)"),
    "text.jpg": (lambda: b"no image", "decode", "not an image in an accepted format (8 bytes"),
    "cut.jpg": (lambda: encode(draw_rectangle(), "JPEG")[:700], "decode", "cannot be decoded"),
    "cut.png": (lambda: encode(draw_rectangle(), "PNG")[:700], "decode", "cannot be decoded"),
    "header.jpg": (
        lambda: encode(draw_rectangle(), "JPEG")[:20],
        "decode",
        "cannot be opened as JPEG (20 bytes)",
    ),
    "large.png": (
        lambda: encode(Image.new("1", (12_000, 9_000)), "PNG"),
        "decode",
        "12000x9000 pixels are over the limit",
    ),
    "blank.avif": (encode_blank_avif, "decode", "cannot be decoded"),
    "flipped.png": (encode_spoiled, "decode", "cannot be decoded"),
    "float.tif": (encode_float, "decode", "float pixels have no known range"),
    "twelve-bit.png": (encode_twelve_bit, "decode", "all below 4096 of 65535"),
    "missing.jpg": (lambda: None, "read", "does not exist"),
}


@pytest.fixture(scope="module")
def image_zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A manifest of all images and their names in its order: good and bad mixed."""
    root = tmp_path_factory.mktemp("zoo")
    kinds = {name: make for name, (make, *_) in (READABLE | UNREADABLE).items()}
    names = sorted(kinds, key=lambda name: name[::-1])
    for name in names:
        data = kinds[name]()
        if data is not None:
            (root / name).write_bytes(data)
    rows = [ManifestRow(name, str(root / name), None, None, None) for name in names]
    manifest = str(root / "manifest.parquet")
    write_manifest(manifest, rows, None)
    return manifest, names


def read_rows(output: str) -> list[dict[str, Any]]:
    return [row for table in shards.open_parts(output).read_tables() for row in table.to_pylist()]


def check_rows(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Each image once and in order: of its stored size, or failed for its own reason."""
    assert [row["image_id"] for row in rows] == names
    for row in rows:
        name = row["image_id"]
        if name in READABLE:
            assert row["status"] == "ok", row
            assert (row["width"], row["height"]) == READABLE[name][1], name
        else:
            _, stage, message = UNREADABLE[name]
            assert row["status"] == "failed", name
            assert message in row["error_message"], row
            assert row.get("stage", stage) in (stage, "propose"), row


def check_inside(boxes: list[list[float]], row: dict[str, Any]) -> None:
    """Boxes have an area and are inside the stored image."""
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= row["width"], row["image_id"]
        assert 0 <= y1 < y2 <= row["height"], row["image_id"]


@pytest.mark.parametrize("max_side", [None, 64])
def test_proposals_have_one_row_per_image(
    image_zoo: tuple[str, list[str]], tmp_path: Path, max_side: int | None
) -> None:
    manifest, names = image_zoo
    output = str(tmp_path / "proposals")
    settings = ProposalSettings(strategy="single", min_side=1, max_side=max_side)
    summary = run_proposals(manifest, output, settings, options=OPTIONS)
    assert (summary.images, summary.images_failed) == (len(names), len(UNREADABLE))
    rows = read_rows(output)
    check_rows(rows, names)
    for row in rows:
        check_inside(row["boxes"] or [], row)
        if row["status"] == "ok" and row["height"] == 60:
            assert row["boxes"], row["image_id"]


def test_detections_have_one_row_per_image(
    image_zoo: tuple[str, list[str]], tmp_path: Path
) -> None:
    manifest, names = image_zoo
    settings = DetectionSettings(
        postprocessing=PostprocessingSettings(score_threshold=0.0), precision="fp32"
    )
    proposals = ProposalSettings(strategy="single", min_side=1)
    output = str(tmp_path / "detections")
    run_detection(
        manifest,
        write_random_checkpoint(tmp_path),
        output,
        proposals=proposals,
        settings=settings,
        options=OPTIONS,
        actors=ActorOptions(1),
    )
    rows = read_rows(output)
    check_rows(rows, names)
    rows_by_name = {row["image_id"]: row for row in rows}
    for row in rows:
        corners = [[d[side] for side in ("x1", "y1", "x2", "y2")] for d in row["detections"] or []]
        check_inside(corners, row)
        assert (row["detections"] is None) == (row["status"] == "failed")
        if row["status"] == "failed":
            assert row["stage"] == UNREADABLE[row["image_id"]][1]
        elif row["height"] == 60:
            assert row["detections"], row["image_id"]
    # What a viewer would do with the image makes no difference to what is stored.
    for name, same in (("rotated.jpg", "ordinary.jpg"), ("misnamed.jpg", "ordinary.png")):
        scores = [[d["score"] for d in rows_by_name[image]["detections"]] for image in (name, same)]
        np.testing.assert_allclose(sorted(scores[0]), sorted(scores[1]), atol=1e-3)
