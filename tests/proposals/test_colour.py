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
    difference = np.abs(planes - expected)
    if space in ("HSV", "H"):  # hue is a circle: 254.6 rounds to 255, which is 0
        difference[0] = np.minimum(difference[0], 255 - difference[0])
    assert difference.max() <= (0.56 if space in ("Lab", "rgI", "I", "C") else 0.5001)


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
