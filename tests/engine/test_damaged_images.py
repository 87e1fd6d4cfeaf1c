"""Images of every kind among ordinary ones, through propose and detect: each one row, none lost."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import shards
from pipeline.detector.keep import Keep
from pipeline.engine.detect import run as detection_run
from pipeline.engine.detect.run import DetectionSettings
from pipeline.engine.propose import run as proposal_run
from pipeline.manifests import ManifestRow, write_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import random_checkpoint

pytestmark = pytest.mark.usefixtures("ray_cluster")

OPTIONS = RunOptions(shard_size=9, max_failed_fraction=1)


def drawn(width: int = 80, height: int = 60) -> Image.Image:
    """Noise with a rectangle, which proposals find where there is room."""
    rng = np.random.default_rng(width * height)
    image = rng.integers(90, 110, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] = (200, 30, 60)
    return Image.fromarray(image)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def rotated() -> bytes:
    """Stored as 80x60 with the note that a viewer should turn it."""
    exif = Image.Exif()
    exif[274] = 6
    return encoded(drawn(), "JPEG", exif=exif)


def animated() -> bytes:
    frames = [drawn().convert("P"), Image.new("P", (80, 60))]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bit() -> bytes:
    return encoded(Image.fromarray(np.asarray(drawn().convert("L")).astype(np.uint16) * 257), "PNG")


def spoiled() -> bytes:
    """A PNG with a bit flipped in its pixels."""
    data = bytearray(encoded(drawn(), "PNG"))
    data[len(data) // 2] ^= 0x10
    return bytes(data)


def blank_avif() -> bytes:
    """Its pixels are zeros, for which its decoder has an error of its own kind."""
    data = encoded(drawn(), "AVIF")
    start = data.index(b"mdat") + 4
    return data[:start] + bytes(len(data) - start)


READABLE: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "ordinary.png": (lambda: encoded(drawn(), "PNG"), (80, 60)),
    "ordinary.jpg": (lambda: encoded(drawn(), "JPEG"), (80, 60)),
    "progressive.jpg": (lambda: encoded(drawn(), "JPEG", progressive=True), (80, 60)),
    "cmyk.jpg": (lambda: encoded(drawn().convert("CMYK"), "JPEG"), (80, 60)),
    "grey.jpg": (lambda: encoded(drawn().convert("L"), "JPEG"), (80, 60)),
    "palette.png": (lambda: encoded(drawn().convert("P"), "PNG"), (80, 60)),
    "bilevel.png": (lambda: encoded(drawn().convert("1"), "PNG"), (80, 60)),
    "sixteen-bit.png": (sixteen_bit, (80, 60)),
    "rgba.png": (lambda: encoded(drawn().convert("RGBA"), "PNG"), (80, 60)),
    "la.png": (lambda: encoded(drawn().convert("LA"), "PNG"), (80, 60)),
    "animated.gif": (animated, (80, 60)),
    "rotated.jpg": (rotated, (80, 60)),
    "image.webp": (lambda: encoded(drawn(), "WEBP"), (80, 60)),
    "image.bmp": (lambda: encoded(drawn(), "BMP"), (80, 60)),
    "image.tif": (lambda: encoded(drawn(), "TIFF"), (80, 60)),
    "1x1.png": (lambda: encoded(drawn(1, 1), "PNG"), (1, 1)),
    "1x500.png": (lambda: encoded(drawn(1, 500), "PNG"), (1, 500)),
    "5000x3.png": (lambda: encoded(drawn(5000, 3), "PNG"), (5000, 3)),
    "misnamed.jpg": (lambda: encoded(drawn(), "PNG"), (80, 60)),
    "last.png": (lambda: encoded(drawn(), "PNG"), (80, 60)),
}
UNREADABLE: dict[str, tuple[Callable[[], bytes | None], str, str]] = {
    "zero.jpg": (lambda: b"", "decode", "the file is empty (0 bytes)"),
    "text.jpg": (lambda: b"no image", "decode", "not an image in a known format (10 bytes)"),
    "cut.jpg": (lambda: encoded(drawn(), "JPEG")[:700], "decode", "cannot be decoded"),
    "cut.png": (lambda: encoded(drawn(), "PNG")[:700], "decode", "cannot be decoded"),
    "header.jpg": (lambda: encoded(drawn(), "JPEG")[:20], "decode", "not an image"),
    "large.png": (
        lambda: encoded(Image.new("1", (12_000, 9_000)), "PNG"),
        "decode",
        "12000x9000 pixels are over the limit",
    ),
    "blank.avif": (blank_avif, "decode", "cannot be decoded"),
    "flipped.png": (spoiled, "decode", "cannot be decoded"),
    "missing.jpg": (lambda: None, "read", "does not exist"),
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
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


def rows_of(output: str) -> list[dict[str, Any]]:
    return [row for table in shards.open_parts(output).tables() for row in table.to_pylist()]


def check_rows(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Each image once and in order: of its stored size, or failed for its own reason."""
    assert [row["image_id"] for row in rows] == names
    for row in rows:
        name = row["image_id"]
        if name in READABLE:
            assert row["status"] == "ok", row
            assert (row["width"], row["height"]) == READABLE[name][1], name
        else:
            _, stage, told = UNREADABLE[name]
            assert row["status"] == "failed", name
            assert told in row["error_message"], row
            assert row.get("stage", stage) in (stage, "propose"), row


def check_inside(boxes: list[list[float]], row: dict[str, Any]) -> None:
    """Boxes with an area that lie in the stored image."""
    for x1, y1, x2, y2 in boxes:
        assert 0 <= x1 < x2 <= row["width"], row["image_id"]
        assert 0 <= y1 < y2 <= row["height"], row["image_id"]


@pytest.mark.parametrize("max_side", [None, 64])
def test_proposals(zoo: tuple[str, list[str]], tmp_path: Path, max_side: int | None) -> None:
    manifest, names = zoo
    output = str(tmp_path / "proposals")
    settings = ProposalSettings(strategy="single", min_side=1, max_side=max_side)
    summary = proposal_run.run(manifest, output, settings, options=OPTIONS)
    assert (summary.images, summary.images_failed) == (len(names), len(UNREADABLE))
    rows = rows_of(output)
    check_rows(rows, names)
    for row in rows:
        check_inside(row["boxes"] or [], row)
        if row["status"] == "ok" and row["height"] == 60:
            assert row["boxes"], row["image_id"]


def test_detections(zoo: tuple[str, list[str]], tmp_path: Path) -> None:
    manifest, names = zoo
    settings = DetectionSettings(keep=Keep(score_threshold=0.0), precision="fp32")
    proposals = ProposalSettings(strategy="single", min_side=1)
    output = str(tmp_path / "detections")
    detection_run.run(
        manifest,
        random_checkpoint(tmp_path),
        output,
        proposals=proposals,
        settings=settings,
        options=OPTIONS,
        actors=1,
    )
    rows = rows_of(output)
    check_rows(rows, names)
    found = {row["image_id"]: row for row in rows}
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
        scores = [[d["score"] for d in found[each]["detections"]] for each in (name, same)]
        np.testing.assert_allclose(sorted(scores[0]), sorted(scores[1]), atol=1e-3)
