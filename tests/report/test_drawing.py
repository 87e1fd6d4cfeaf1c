"""Which region of an image is shown, and which boxes are drawn on it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.drawing import choose_crop
from pipeline.report.figures import build_figure
from pipeline.report.gallery import Crop, DrawnBox, GalleryItem, Thumbnail
from pipeline.report.thumbnails import reduce_image


def _box(x1: float, y1: float, x2: float, y2: float, score: float | None = None) -> DrawnBox:
    return DrawnBox("missed" if score is None else "false", "cat", x1, y1, x2, y2, score, 0.3, True)


def test_a_large_box_shows_the_whole_image() -> None:
    assert choose_crop([_box(10, 10, 300, 200)], 640, 480) == Crop(0, 0, 640, 480)
    assert choose_crop([], 640, 480) == Crop(0, 0, 640, 480)


@pytest.mark.parametrize("corner", [(0, 0), (300, 200), (620, 460)])
def test_a_small_box_is_inside_its_crop_which_is_inside_the_image(corner: tuple[int, int]) -> None:
    x, y = corner
    crop = choose_crop([_box(x, y, x + 20, y + 20)], 640, 480)
    assert 0 <= crop.left <= x
    assert 0 <= crop.top <= y
    assert x + 20 <= crop.left + crop.width <= 640
    assert y + 20 <= crop.top + crop.height <= 480
    assert (crop.width, crop.height) == (92, 69)  # four sides, as 4 by 3


def test_a_thumbnail_has_the_aspect_of_its_crop_and_is_not_enlarged_without_end() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    assert reduce_image(image, Crop(0, 0, 640, 480)).shape == (270, 360, 3)
    assert reduce_image(image, Crop(10, 10, 40, 30)).shape == (120, 160, 3)
    assert reduce_image(image, Crop(0, 0, 640, 1)).shape == (1, 360, 3)


def test_a_figure_names_its_box_and_leaves_out_what_is_outside_the_crop() -> None:
    crop = Crop(100, 100, 90, 60)
    item = GalleryItem(
        "a",
        "memory://a",
        0,
        (_box(0, 0, 50, 50), _box(110, 110, 130, 130, 0.875)),
        Thumbnail("t", crop),
    )
    figure = build_figure(item)
    assert figure.heading == "cat 0.88, IoU 0.30"
    assert [(box.x, box.y, box.width) for box in figure.boxes] == [("110", "110", "20")]
    assert figure.view == "100 100 90 60"
    assert (figure.width, figure.height) == (360, 240)
