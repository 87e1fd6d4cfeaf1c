import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.pyramid import LevelRois, Pyramid, assign_levels, split_by_level
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import draw_random_boxes

PAPER = Pyramid(scales=(480, 576, 688, 864, 1200), scale_cap=2000)


def make_square(side, x=0.0):
    return [x, 0, x + side, side]


def test_a_roi_uses_the_scale_where_its_sides_are_nearest_to_224_pixels():
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
    boxes = np.array([make_square(side) for side in by_hand], np.float32)
    assert assign_levels(boxes, (300, 400), shapes).tolist() == list(by_hand.values())


def test_the_area_decides_and_not_the_shape():
    boxes = np.array([[0, 0, 392, 32], [0, 0, 112, 112]], np.float32)  # 12544 pixels both
    assert assign_levels(boxes, (400, 400), [(400, 400), (800, 800)]).tolist() == [1, 1]


def test_the_first_of_equally_near_scales_wins():
    # At 1 and 3 times the area: 25088 is as far below 50176 as 75264 is above.
    boxes = np.array([[0, 0, 224, 112]], np.float32)
    assert assign_levels(boxes, (400, 400), [(400, 400), (400, 1200)]).tolist() == [0]
    assert assign_levels(boxes, (400, 400), [(400, 1200), (400, 400)]).tolist() == [0]


@given(st.integers(0, 2**31), st.integers(150, 700), st.integers(150, 700))
def test_levels_equal_the_released_code(seed, height, width):
    boxes = draw_random_boxes(np.random.default_rng(seed), 40, height, width)
    shapes = [
        level.compute_resized_shape(height, width) for level in PAPER.build_levels(Preprocessing())
    ]
    assigned = assign_levels(boxes, (height, width), shapes)
    # im_scale = target_size / im_size_min, or max_size / im_size_max, and the argmin over scales of
    # |area * im_scale ** 2 - 224 ** 2|; scaled shapes are whole pixels here, so near ties may differ.
    short, long = min(height, width), max(height, width)
    factors = [min(side / short, 2000 / long) for side in PAPER.scales]
    for box, level in zip(boxes.astype(float), assigned, strict=True):
        area = (box[2] - box[0]) * (box[3] - box[1])
        away = [abs(area * factor**2 - 224**2) for factor in factors]
        best = int(np.argmin(away))
        rounding = 0.005 * area * (factors[best] ** 2 + factors[level] ** 2)
        assert away[level] <= away[best] + rounding


def test_each_roi_is_at_one_level_and_equal_shapes_are_one_level():
    boxes = [
        np.array(
            [make_square(224), make_square(56), make_square(224, 5), make_square(112)], np.float32
        ),
        np.zeros((0, 4), np.float32),
        np.array([make_square(56)], np.float32),
    ]
    levels = Pyramid(scales=(300, 600, 1200), scale_cap=1600).build_levels(Preprocessing())
    rois_by_level = split_by_level(boxes, [(300, 400), (300, 400), (400, 300)], levels)
    assert [
        (at_level.image_index, at_level.shape, at_level.rows.tolist()) for at_level in rois_by_level
    ] == [
        (0, (300, 400), [0, 2]),
        (0, (600, 800), [3]),
        (0, (1200, 1600), [1]),
        (2, (1600, 1200), [0]),
    ]
    capped = Pyramid(scales=(300, 600, 640), scale_cap=640).build_levels(Preprocessing())
    assert [at_level.shape for at_level in split_by_level(boxes, [(300, 400)] * 3, capped)] == [
        (300, 400),
        (480, 640),
        (480, 640),
    ]


def test_a_single_scale_has_all_rois_of_an_image():
    own = Preprocessing(short_side=300, max_side=500)
    boxes = [np.array([make_square(224), make_square(56)], np.float32)]
    (at_level,) = split_by_level(boxes, [(300, 400)], Pyramid().build_levels(own))
    assert isinstance(at_level, LevelRois)
    assert at_level.shape == (300, 400)
    assert at_level.rows.tolist() == [0, 1]


def test_levels_differ_from_the_preprocessing_only_in_size():
    own = Preprocessing(channel_order="BGR", short_side=300, max_side=500)
    assert Pyramid().build_levels(own) == (own,)
    assert [(level.short_side, level.max_side) for level in PAPER.build_levels(own)] == [
        (side, 2000) for side in PAPER.scales
    ]
    assert {level.channel_order for level in PAPER.build_levels(own)} == {"BGR"}


@pytest.mark.parametrize(
    ("pyramid", "message"),
    [
        (Pyramid(scales=(300, 1200)), "short side 1200 and cap 1000"),
        (Pyramid(scales=(8,)), "short side 8"),
        (Pyramid(scale_cap=0), "short side 600 and cap 0"),
        (Pyramid(scale_cap=400), "short side 600 and cap 400"),
    ],
)
def test_an_error_names_the_option_of_invalid_scales(pyramid, message):
    with pytest.raises(InvalidConfiguration, match=f"--scales, --scale-cap: {message}"):
        pyramid.build_levels(Preprocessing())
