import numpy as np
import pytest

from pipeline.proposals import colour
from pipeline.proposals.strategy import COLOUR_SPACES
from tests.proposals import reference
from tests.proposals.sample_images import draw_noise


def _convert(image, space):
    planes = np.empty((colour.count_channels(space), *image.shape[:2]), np.uint8)
    colour.convert_colours(image, space, planes)
    return planes


@pytest.mark.parametrize("space", COLOUR_SPACES)
def test_planes_equal_the_rounded_plain_formulas(space):
    image = np.concatenate([draw_noise(1, 40, 50), draw_noise(2, 20, 50) // 16])
    image[0, :8] = [
        (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0),
        (0, 0, 255), (255, 255, 0), (7, 7, 7), (1, 0, 0),
    ]  # fmt: skip
    expected = reference.convert_colour(image, space)
    planes = _convert(image, space)
    assert planes.shape == expected.shape
    assert np.abs(planes - expected).max() <= (0.56 if space in ("Lab", "C") else 0.5001)


@pytest.mark.parametrize("space", ["RGB", "I", "rgI", "HSV", "rgb", "H"])
def test_bytes_are_those_of_the_double_formulas_halves_included(space):
    # Among multiples of 17, every seventh colour is halfway between two bytes of hue or saturation.
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(64, 64, 3)
    image = np.concatenate([colours, draw_noise(3, 32, 64)])
    expected = np.floor(reference.convert_colour(image, space) + 0.5)
    np.testing.assert_array_equal(_convert(image, space), expected)


def test_halves_follow_the_rounding_of_double_precision():
    # Saturations are 255 * 15 / 170 = 22.5 and 255 * 17 / 170 = 25.5; in doubles, the second is just below.
    image = np.array([[[170, 155, 155], [170, 153, 153]]], np.uint8)
    assert _convert(image, "HSV")[1].tolist() == [[23, 25]]


@pytest.mark.parametrize("space", COLOUR_SPACES)
def test_white_grey_and_black_have_no_colour(space):
    image = np.array([[[255] * 3, [128] * 3, [0] * 3]], np.uint8)
    planes = _convert(image, space)
    neutral = {"Lab": [1, 2], "HSV": [0, 1], "rgb": [0, 1, 2], "rgI": [0, 1], "H": [0]}
    for channel in neutral.get(space, []):
        assert len(set(planes[channel, 0].tolist())) == 1
    brightness = {"RGB": 0, "I": 0, "Lab": 0, "HSV": 2, "rgI": 2}
    if space in brightness:
        values = planes[brightness[space], 0].tolist()
        assert values[0] == 255
        assert values[2] == 0


def test_a_single_channel_counts_three_times():
    assert [colour.count_repeats(space) for space in ("I", "H", "RGB", "C")] == [3, 3, 1, 1]
