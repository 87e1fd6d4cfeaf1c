"""Which region of an image is shown, and which boxes are drawn on it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pipeline.report.drawing import ImageBoxes, MatchBoxes, choose_crop
from pipeline.report.figures import build_figure
from pipeline.report.gallery import Crop, DrawnBox, GalleryItem, Role, Thumbnail
from pipeline.report.thumbnails import reduce_image


def _box(x1: float, y1: float, x2: float, y2: float, score: float | None = None) -> DrawnBox:
    return DrawnBox("missed" if score is None else "false", "cat", x1, y1, x2, y2, score, 0.3, True)


def _plain(role: Role, x1: float, x2: float, score: float | None = None) -> DrawnBox:
    return DrawnBox(role, "cat", x1, 0, x2, 50, score)


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
    assert figure.boxes.count("<rect") == 1
    assert 'x="110" y="110" width="20"' in figure.boxes
    assert figure.view == "100 100 90 60"
    assert (figure.width, figure.height) == (360, 240)


def test_tags_of_boxes_at_one_place_lie_below_each_other() -> None:
    boxes = tuple(_box(100, 100, 200, 200, score) for score in (0.5, 0.6, 0.7))
    item = GalleryItem("a", "memory://a", 0, boxes, Thumbnail("t", Crop(0, 0, 360, 270)))
    lines = [float(tag.y) for tag in build_figure(item).tags]
    assert len(lines) == 3
    assert all(second - first >= 12 for first, second in pairwise(lines))


def test_boxes_of_an_image_are_the_same_however_often_they_are_drawn() -> None:
    true, low = _plain("true", 0, 50, 0.9), _plain("true", 60, 90, 0.2)
    first, second = _plain("truth", 0, 52), _plain("truth", 60, 95)
    image = ImageBoxes(
        (
            MatchBoxes(true, first, 0, 0, "cat", 0.9),
            MatchBoxes(low, second, 1, 1, "cat", 0.9),
        )
    )
    plain = image.draw(-1, 0.5)
    assert [(box.role, box.score) for box in plain] == [
        ("truth", None),
        ("missed", None),
        ("true", 0.9),
    ]
    focused = image.draw(1, 0.5)
    assert [(box.role, box.score) for box in focused if box.is_focus] == [
        ("missed", None),
        ("true", 0.2),
    ]
    of_object = image.draw(1, 0.5, is_object=True)
    assert [(b.role, b.is_focus) for b in of_object if b.score == 0.2] == [("ignored", False)]
    assert image.draw(-1, 0.5) == plain
    assert len(image.draw(-1, 0.1)) == 4
