"""Images resized by torch's operators are those that Pillow resizes."""

import numpy as np
import pytest
import torch

from pipeline import imaging
from pipeline.detector.device_resize import compute_weights, resize_images


def resize_both(size, shape, seed=0, images=1):
    rng = np.random.default_rng(seed)
    # Noise, whose sums fall near the limits of rounding, and values at both ends of the range.
    drawn = rng.integers(0, 256, (images, *size, 3), dtype=np.uint8)
    drawn[rng.random(drawn.shape) < 0.3] = 255
    expected = np.stack([imaging.resize(image, shape[1], shape[0]) for image in drawn])
    return resize_images(torch.from_numpy(drawn), shape).numpy(), expected


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((375, 500), (600, 800)),
        ((333, 500), (600, 901)),
        ((120, 160), (600, 800)),
        ((60, 80), (60, 113)),
        ((60, 80), (97, 80)),
        ((60, 400), (60, 113)),
        ((1, 1), (32, 32)),
        ((7, 90), (32, 32)),
        ((60, 80), (60, 80)),
    ],
)
def test_images_that_do_not_become_less_high_are_equal_to_the_last_bit(size, shape):
    resized, expected = resize_both(size, shape, images=2)
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize(
    ("size", "shape"), [((900, 1200), (600, 800)), ((677, 137), (553, 109)), ((500, 40), (32, 64))]
)
def test_images_that_become_less_high_differ_by_one_level_at_most(size, shape):
    resized, expected = resize_both(size, shape)
    assert np.abs(resized.astype(int) - expected).max() <= 1


def test_weights_of_a_hand_worked_row():
    # Two pixels become four, whose centres lie at 0.25, 0.75, 1.25 and 1.75 of the first row's pixels.
    first, weights = compute_weights(2, 4)
    np.testing.assert_array_equal(first, [0, 0, 0, 1])
    np.testing.assert_array_equal(weights * 2.0**-22, [[1, 0], [0.75, 0.25], [0.25, 0.75], [1, 0]])
    assert (compute_weights(977, 311)[1].sum(axis=1) - 2**22).__abs__().max() <= 6
