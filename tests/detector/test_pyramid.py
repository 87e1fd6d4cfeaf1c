import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import Part, Pyramid, nearest, parts
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import random_boxes

PAPER = Pyramid(scales=(480, 576, 688, 864, 1200), scale_cap=2000)


def square(side, x=0.0):
    return [x, 0, x + side, side]


def test_a_roi_is_taken_where_it_has_nearest_to_224_pixels_a_side():
    # An image of 300 x 400 at its own size, at twice and at four times that.
    shapes = [(300, 400), (600, 800), (1200, 1600)]
    by_hand = {
        224: 0,
        112: 1,
        56: 2,
        10: 2,  # 100, 400 or 1600 pixels: 1600 is nearest to 50176
        300: 0,
        150: 0,  # 22500, 27676 too few; 90000, 39824 too many
        141: 1,  # 19881, 30295 too few; 79524, 29348 too many
    }
    boxes = np.array([square(side) for side in by_hand], np.float32)
    assert nearest(boxes, (300, 400), shapes).tolist() == list(by_hand.values())


def test_it_goes_by_area_not_by_shape():
    boxes = np.array([[0, 0, 392, 32], [0, 0, 112, 112]], np.float32)  # 12544 pixels both
    assert nearest(boxes, (400, 400), [(400, 400), (800, 800)]).tolist() == [1, 1]


def test_of_equally_near_scales_the_first_counts():
    # At 1 and 3 times the area: 25088 is as far below 50176 as 75264 is above.
    boxes = np.array([[0, 0, 224, 112]], np.float32)
    assert nearest(boxes, (400, 400), [(400, 400), (400, 1200)]).tolist() == [0]
    assert nearest(boxes, (400, 400), [(400, 1200), (400, 400)]).tolist() == [0]


@given(st.integers(0, 2**31), st.integers(150, 700), st.integers(150, 700))
def test_equals_the_released_code(seed, height, width):
    boxes = random_boxes(np.random.default_rng(seed), 40, height, width)
    shapes = [level.resized_shape(height, width) for level in PAPER.levels(Preprocessing())]
    found = nearest(boxes, (height, width), shapes)
    # im_scale = target_size / im_size_min, or max_size / im_size_max, and the argmin over scales of
    # |area * im_scale ** 2 - 224 ** 2|; scaled shapes are whole pixels here, so near ties may differ.
    short, long = min(height, width), max(height, width)
    factors = [min(side / short, 2000 / long) for side in PAPER.scales]
    for box, level in zip(boxes.astype(float), found, strict=True):
        area = (box[2] - box[0]) * (box[3] - box[1])
        away = [abs(area * factor**2 - 224**2) for factor in factors]
        best = int(np.argmin(away))
        rounding = 0.005 * area * (factors[best] ** 2 + factors[level] ** 2)
        assert away[level] <= away[best] + rounding


def test_parts_hold_each_roi_once_and_equal_shapes_are_one_part():
    boxes = [
        np.array([square(224), square(56), square(224, 5), square(112)], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([square(56)], np.float32),
    ]
    levels = Pyramid(scales=(300, 600, 1200), scale_cap=1600).levels(Preprocessing())
    made = parts(boxes, [(300, 400), (300, 400), (400, 300)], levels)
    assert [(part.image, part.shape, part.rows.tolist()) for part in made] == [
        (0, (300, 400), [0, 2]),
        (0, (600, 800), [3]),
        (0, (1200, 1600), [1]),
        (2, (1600, 1200), [0]),
    ]
    capped = Pyramid(scales=(300, 600, 640), scale_cap=640).levels(Preprocessing())
    assert [part.shape for part in parts(boxes, [(300, 400)] * 3, capped)] == [
        (300, 400),
        (480, 640),
        (480, 640),
    ]


def test_one_scale_is_all_of_a_image():
    own = Preprocessing(short_side=300, max_side=500)
    boxes = [np.array([square(224), square(56)], np.float32)]
    (part,) = parts(boxes, [(300, 400)], Pyramid().levels(own))
    assert isinstance(part, Part)
    assert part.shape == (300, 400)
    assert part.rows.tolist() == [0, 1]


def test_levels_keep_the_weights_preprocessing():
    own = Preprocessing(channel_order="BGR", short_side=300, max_side=500)
    assert Pyramid().levels(own) == (own,)
    assert [(level.short_side, level.max_side) for level in PAPER.levels(own)] == [
        (side, 2000) for side in PAPER.scales
    ]
    assert {level.channel_order for level in PAPER.levels(own)} == {"BGR"}


@pytest.mark.parametrize(
    ("pyramid", "told"),
    [
        (Pyramid(scales=(300, 1200)), "short side 1200 and cap 1000"),
        (Pyramid(scales=(8,)), "short side 8"),
        (Pyramid(scale_cap=0), "short side 600 and cap 0"),
        (Pyramid(scale_cap=400), "short side 600 and cap 400"),
    ],
)
def test_senseless_scales_are_refused_by_name(pyramid, told):
    with pytest.raises(InvalidConfiguration, match=f"--scales, --scale-cap: {told}"):
        pyramid.levels(Preprocessing())
