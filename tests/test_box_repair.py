from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.box_repair import repair_boxes

COORDINATE = st.floats(-200, 300, width=32)


def test_each_fault_is_named_and_the_other_boxes_stay() -> None:
    boxes = np.array(
        [
            [0, 0, 10, 10],
            [3, 3, 3, 9],
            [9, 9, 3, 12],
            [np.nan, 0, 5, 5],
            [0, 0, np.inf, 5],
            [100, 0, 120, 9],
            [-9, 0, 0, 9],
            [-2, -0.3, 101.5, 20],
        ]
    )
    repaired = repair_boxes(boxes, 100, 50)
    assert repaired.faults == (
        *(None, "no area", "inverted", "not finite", "not finite"),
        *("outside the image", "outside the image", None),
    )
    assert repaired.clipped.tolist() == [False] * 7 + [True]
    assert repaired.boxes[repaired.kept].tolist() == [[0, 0, 10, 10], [0, 0, 100, 20]]


def test_rounding_is_no_clip_and_no_boxes_are_no_fault() -> None:
    assert not repair_boxes(np.array([[0, 0, 100.0005, 50]]), 100, 50).clipped.any()
    assert repair_boxes(np.empty((0, 4)), 100, 50).boxes.shape == (0, 4)


@given(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
def test_a_box_stays_only_with_area_inside(x1: float, y1: float, x2: float, y2: float) -> None:
    repaired = repair_boxes(np.array([[x1, y1, x2, y2]]), 100, 50)
    (fault,), ((left, top, right, bottom),) = repaired.faults, repaired.boxes.tolist()
    touches = x1 < x2 and y1 < y2 and x2 > 0 and y2 > 0 and x1 < 100 and y1 < 50
    if fault is None:
        assert touches
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 50
    elif touches:  # less than float32 resolves
        assert fault == "no area"
        assert min(x2 - x1, y2 - y1, x2, y2, 100 - x1, 50 - y1) < 1e-4
