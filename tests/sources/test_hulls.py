from __future__ import annotations

import math

import pytest

from pipeline.sources.hulls import enclose_ellipse, enclose_points, enclose_rotated


def test_points_are_enclosed() -> None:
    assert enclose_points([(3, 9), (1, 4), (7, 2)]) == (1, 2, 7, 9)


@pytest.mark.parametrize("points", [[(1, 2), (math.nan, 3)], [(math.inf, 2), (1, 3)]])
def test_points_that_are_not_finite_enclose_nothing(points: list[tuple[float, float]]) -> None:
    assert all(map(math.isnan, enclose_points(points)))


def test_a_quarter_turn_is_clockwise() -> None:
    # About its top-left corner (10, 20), the right end of the rectangle comes to lie below.
    assert enclose_rotated((10, 20, 14, 22), 90, (10, 20)) == pytest.approx((8, 20, 10, 24))
    # About its centre (12, 21), the sides change places.
    assert enclose_rotated((10, 20, 14, 22), 270, (12, 21)) == pytest.approx((11, 19, 13, 23))


def test_a_square_on_its_corner_is_wider() -> None:
    side = math.sqrt(2)
    assert enclose_rotated((-1, -1, 1, 1), 45, (0, 0)) == pytest.approx((-side, -side, side, side))


def test_no_angle_keeps_the_box_as_it_is() -> None:
    assert enclose_rotated((0.1, 0.2, 0.3, 0.7), 0, (5, 5)) == (0.1, 0.2, 0.3, 0.7)


def test_ellipses() -> None:
    assert enclose_ellipse((10, 20), (4, 1)) == pytest.approx((6, 19, 14, 21))
    assert enclose_ellipse((10, 20), (4, 1), 90) == pytest.approx((9, 16, 11, 24))
    half = math.sqrt((16 + 1) / 2)
    assert enclose_ellipse((0, 0), (4, 1), 45) == pytest.approx((-half, -half, half, half))
