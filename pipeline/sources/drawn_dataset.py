"""A small labelled dataset, drawn locally in VOC layout so that a demo needs no download.

Each image shows one to four shapes of six classes on a muted background, with varied size, rotation, aspect
ratio, colour and texture. Boxes come from the visible pixels of each object. Each image has its own
generator, keyed by seed and number, so any image can be drawn alone with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, imaging
from pipeline.sources.drawn_shapes import (
    SHAPES,
    TEXTURES,
    Plane,
    compute_texture,
    draw_background,
    hsv_to_rgb,
)

CLASSES = tuple(sorted(SHAPES))

_LARGEST_IOU = 0.08
"""Objects may touch and overlap slightly, but never hide each other."""
_SUPERSAMPLING = 2
_TRIES = 40


@dataclass(frozen=True)
class DrawnImage:
    """An image uint8 `(H, W, 3)`, its labels, and half-open boxes `(N, 4)` tight to the visible pixels."""

    image: NDArray[np.uint8]
    labels: tuple[str, ...]
    boxes: NDArray[np.float32]


def draw_dataset(root: Path, train: int = 200, test: int = 60, seed: int = 0) -> None:
    """Draw the dataset into `root`: JPEGImages, Annotations, ImageSets/Main/{train,test}.txt.

    Args:
        root: the folder, created if needed; files of the same names are replaced.
        train: images in split `train`.
        test: images in split `test`.
        seed: equal seeds draw equal images.
    """
    folders = [root / "JPEGImages", root / "Annotations", root / "ImageSets" / "Main"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    jpeg_folder, annotations, lists = folders
    names = [f"drawn_{index:05d}" for index in range(train + test)]
    for index, name in enumerate(names):
        drawn = draw_image(np.random.default_rng([seed, index]))
        (jpeg_folder / f"{name}.jpg").write_bytes(imaging.encode_jpeg(drawn.image))
        (annotations / f"{name}.xml").write_text(_format_annotation(f"{name}.jpg", drawn))
    for split, members in (("train", names[:train]), ("test", names[train:])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in members))


def draw_image(generator: np.random.Generator) -> DrawnImage:
    """Draw one image of about 320x240 with one to four objects."""
    width, height = int(generator.integers(280, 361)), int(generator.integers(210, 271))
    canvas = draw_background(width, height, generator)
    owner = np.full((height, width), -1)
    placed: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for _ in range(generator.integers(1, 5)):
        place = _find_free_square(width, height, placed, generator)
        if place is None:
            break
        label = str(generator.choice(CLASSES))
        _draw_object(canvas, owner, len(labels), label=label, place=place, generator=generator)
        placed.append(place)
        labels.append(label)
    boxes = np.array([_find_extent(owner == index) for index in range(len(labels))], np.float32)
    image = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    return DrawnImage(image, tuple(labels), boxes)


def _find_free_square(
    width: int,
    height: int,
    placed: Sequence[NDArray[np.float64]],
    generator: np.random.Generator,
) -> NDArray[np.float64] | None:
    """A random square x1, y1, x2, y2 that hardly overlaps `placed`; None if there is no room."""
    for _ in range(_TRIES):
        side = generator.uniform(52, 128)
        x, y = generator.uniform(2, width - side - 2), generator.uniform(2, height - side - 2)
        place = np.array([x, y, x + side, y + side])
        if not placed or geometry.iou(place[None], np.array(placed)).max() <= _LARGEST_IOU:
            return place
    return None


def _draw_object(
    canvas: Plane,
    owner: NDArray[np.intp],
    index: int,
    *,
    label: str,
    place: NDArray[np.float64],
    generator: np.random.Generator,
) -> None:
    """Blend one object into the canvas `(H, W, 3)` and mark its pixels in `owner` `(H, W)`."""
    x1, y1 = np.floor(place[:2]).astype(int)
    x2, y2 = np.ceil(place[2:]).astype(int)
    step = 1 / _SUPERSAMPLING
    y, x = np.meshgrid(
        np.arange(y1, y2, step) + step / 2, np.arange(x1, x2, step) + step / 2, indexing="ij"
    )
    radius = (place[2] - place[0]) / 2 / 1.05
    turn, squeeze = generator.uniform(0, 2 * np.pi), generator.uniform(0.75, 1.0)
    across, down = x - (place[0] + place[2]) / 2, y - (place[1] + place[3]) / 2
    u = (across * np.cos(turn) + down * np.sin(turn)) / radius
    v = (down * np.cos(turn) - across * np.sin(turn)) / (radius * squeeze)
    distance = SHAPES[label](u, v)
    paint = _choose_colours(canvas[y1:y2, x1:x2].mean(axis=(0, 1)), u, v, label, generator)
    paint[distance > -0.07] *= 0.45  # an outline in a darker tone of the same colour
    cover = _downsample((distance < 0)[..., None].astype(float))
    colours = _downsample(paint * (distance < 0)[..., None]) / np.maximum(cover, 1e-9)
    canvas[y1:y2, x1:x2] += cover * (colours - canvas[y1:y2, x1:x2])
    owner[y1:y2, x1:x2][cover[..., 0] >= 0.5] = index


def _choose_colours(
    behind: NDArray[np.float64], u: Plane, v: Plane, label: str, generator: np.random.Generator
) -> Plane:
    """Colours `(H, W, 3)` of an object that contrast with the mean colour `behind` it.

    Most objects have a hue near that of their class, as many real objects do; the others have any hue.
    """
    usual = CLASSES.index(label) / len(CLASSES) + generator.normal(0, 0.04)
    hue = usual if generator.uniform() < 0.85 else generator.uniform()
    first = max(
        (hsv_to_rgb(hue, saturation, value) for saturation, value in ((0.9, 0.95), (0.95, 0.55))),
        key=lambda candidate: float(np.abs(candidate - behind).sum()),
    )
    first = first * generator.uniform(0.88, 1.0)
    second = first + (255 - first) * 0.6 if first.mean() < 128 else first * 0.55
    share = compute_texture(str(generator.choice(TEXTURES)), u, v, generator)
    return first + share[..., None] * (second - first)


def _downsample(plane: Plane) -> Plane:
    height, width, channels = plane.shape
    factor = _SUPERSAMPLING
    blocks = plane.reshape(height // factor, factor, width // factor, factor, channels)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _find_extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The half-open box of a mask's pixels."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def _format_annotation(filename: str, drawn: DrawnImage) -> str:
    height, width = drawn.image.shape[:2]
    lines = [
        "<annotation>",
        f"  <filename>{escape(filename)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
    ]
    for label, box in zip(drawn.labels, geometry.to_inclusive(drawn.boxes, origin=1), strict=True):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box.astype(int).tolist(), strict=True)
        lines += [
            f"  <object><name>{escape(label)}</name><difficult>0</difficult><bndbox>"
            + "".join(f"<{name}>{value}</{name}>" for name, value in corners)
            + "</bndbox></object>"
        ]
    return "\n".join([*lines, "</annotation>", ""])
