"""Windows of R-CNN, by hand: the box fills the middle, context surrounds it, the border is filled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.baselines.windows import choose_fill, warp_window, warp_windows
from pipeline.detector.preprocessing import CAFFE, FROM_SCRATCH, TORCHVISION

FILL = np.array([1, 2, 3], np.uint8)


def draw_ramp(height: int, width: int) -> np.ndarray:
    """An image whose red is the column and whose green is the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(width)
    image[..., 1] = np.arange(height)[:, None]
    return image


def test_a_window_at_its_own_size_is_the_box_with_its_surroundings() -> None:
    """The box of 4 pixels becomes 4 of 8 pixels: 2 pixels of context are 2 pixels of the image."""
    image = draw_ramp(20, 20)
    window = warp_window(image, np.array([6, 8, 10, 12]), 8, 2, FILL)
    np.testing.assert_array_equal(window, image[6:14, 4:12])


def test_context_outside_the_image_is_filled() -> None:
    image = draw_ramp(20, 20)
    window = warp_window(image, np.array([0, 15, 4, 19]), 8, 2, FILL)
    # Columns -2 to 6 and rows 13 to 21: two columns on the left and one row at the bottom are missing.
    np.testing.assert_array_equal(window[:7, 2:], image[13:20, :6])
    assert (window[:, :2] == FILL).all()
    assert (window[7] == FILL).all()


def test_context_outside_the_image_is_filled_as_wide_as_the_box_is_stretched() -> None:
    """A box of 4 pixels becomes 8 of 16: columns -2 to 6, so 2 missing ones fill 4 of the window."""
    window = warp_window(draw_ramp(20, 20) + 50, np.array([0, 8, 4, 12]), 16, 4, FILL)
    assert (window[:, :4] == FILL).all()
    assert (window[:, 4:] >= 50).all()


def test_context_is_stretched_with_the_box() -> None:
    """A box of 8 x 2 pixels in 4 x 4: context 2 of 8 is 4 pixels of the image across and 1 along."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[19:21, 16:24] = 200
    window = warp_window(image, np.array([16, 19, 24, 21]), 8, 2, FILL)
    middle = window[2:6, 2:6]
    assert middle.min() > 90
    outside = window.copy()
    outside[1:7, 1:7] = 0
    assert outside.max() < 60


def test_without_context_the_box_fills_the_window() -> None:
    image = draw_ramp(10, 10)
    window = warp_window(image, np.array([2, 3, 6, 7]), 4, 0, FILL)
    np.testing.assert_array_equal(window, image[3:7, 2:6])


@pytest.mark.parametrize(
    "box", [(9.9, 9.9, 10, 10), (0, 0, 0.1, 0.1), (0, 0, 10, 0.2), (0, 0, 10, 10), (9.6, 0, 10, 10)]
)
def test_tiny_boxes_and_those_at_the_border_give_a_window(box: tuple[float, ...]) -> None:
    window = warp_window(draw_ramp(10, 10) + 50, np.array(box), 32, 5, FILL)
    assert window.shape == (32, 32, 3)
    assert (window >= 50).any()


def test_several_boxes_give_a_window_each() -> None:
    image = draw_ramp(20, 20)
    boxes = np.array([[6, 8, 10, 12], [0, 15, 4, 19]], np.float32)
    windows = warp_windows(image, boxes, 8, 2, FILL)
    assert windows.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(windows[1], warp_window(image, boxes[1], 8, 2, FILL))


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [(FROM_SCRATCH, (128, 128, 128)), (TORCHVISION, (124, 116, 104)), (CAFFE, (123, 116, 103))],
)
def test_the_fill_normalises_to_almost_zero(
    preprocessing: object, expected: tuple[int, int, int]
) -> None:
    import torch

    fill = choose_fill(preprocessing)  # type: ignore[arg-type]
    assert tuple(fill) == expected
    values = replace(preprocessing).normalise(torch.from_numpy(fill[None, None, None]))  # type: ignore[type-var]
    one_level = preprocessing.scale / min(preprocessing.std)  # type: ignore[attr-defined]
    assert float(values.abs().max()) <= one_level / 2 + 1e-6
