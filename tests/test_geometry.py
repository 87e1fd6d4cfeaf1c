from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline import geometry

Boxes = NDArray[np.float64]


@st.composite
def box_arrays(draw: st.DrawFn, smallest: float = 0.5, largest_count: int = 6) -> Boxes:
    count = draw(st.integers(1, largest_count))
    corner = hnp.arrays(np.float64, (count, 2), elements=st.floats(-500, 500, width=32))
    sides = hnp.arrays(np.float64, (count, 2), elements=st.floats(smallest, 500, width=32))
    start = draw(corner)
    return np.concatenate([start, start + draw(sides)], axis=1)


def test_iou_and_intersection_of_hand_worked_boxes() -> None:
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4], [3, 3, 3, 9]])
    np.testing.assert_allclose(geometry.iou(a, b), [[1, 50 / 150, 0, 4 / 100, 0]])
    np.testing.assert_allclose(geometry.intersection(a, b), [[100, 50, 0, 4, 0]])


def test_iou_of_two_empty_boxes_is_zero() -> None:
    point = np.array([[3.0, 3, 3, 3]])
    assert geometry.iou(point, point) == 0
    assert geometry.iou(np.empty((0, 4)), point).shape == (0, 1)


@given(box_arrays(), box_arrays())
def test_iou_is_symmetric_and_bounded(a: Boxes, b: Boxes) -> None:
    overlaps = geometry.iou(a, b)
    assert overlaps.shape == (len(a), len(b))
    np.testing.assert_allclose(overlaps, geometry.iou(b, a).T, rtol=1e-12)
    assert overlaps.min() >= 0
    assert overlaps.max() <= 1 + 1e-12
    np.testing.assert_allclose(np.diag(geometry.iou(a, a)), 1)


@given(box_arrays(), st.floats(0.25, 4), st.floats(-50, 50))
def test_scaling_and_shifting_keep_iou(a: Boxes, factor: float, shift: float) -> None:
    moved = geometry.scale(a, factor, factor) + shift
    np.testing.assert_allclose(geometry.iou(moved, moved), geometry.iou(a, a), atol=1e-6)


@given(box_arrays())
def test_decode_inverts_encode(a: Boxes) -> None:
    reference = np.roll(a, 1, axis=0) + np.array([0, 0, 3, 7])
    # Sides differ by a factor of up to 507 / 0.5, which is more than decode allows.
    sides = (a[:, 2:] - a[:, :2]) / (reference[:, 2:] - reference[:, :2])
    within = (np.log(sides) <= geometry.LARGEST_LOG_SCALE).all(axis=1)
    decoded = geometry.decode_deltas(geometry.encode_deltas(a, reference)[:, None, :], reference)[
        :, 0
    ]
    np.testing.assert_allclose(decoded[within], a[within], atol=1e-6)


def test_encode_a_hand_worked_box() -> None:
    """R-CNN, appendix C: centres (5, 10) and (6, 12), sides 10x20 and 5x40."""
    reference = np.array([[0.0, 0, 10, 20]])
    target = np.array([[3.5, -8, 8.5, 32]])
    np.testing.assert_allclose(
        geometry.encode_deltas(target, reference), [[0.1, 0.1, np.log(0.5), np.log(2)]]
    )


def test_decode_does_not_overflow() -> None:
    decoded = geometry.decode_deltas(np.full((1, 1, 4), 1000.0), np.array([[0.0, 0, 16, 16]]))
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded[0, 0, 2] - decoded[0, 0, 0], 1000)


@given(box_arrays(), st.integers(0, 1))
def test_half_open_boxes_survive_the_way_to_inclusive_and_back(a: Boxes, origin: int) -> None:
    np.testing.assert_allclose(
        geometry.from_inclusive(geometry.to_inclusive(a, origin), origin), a, atol=1e-9
    )


def test_voc_counts_from_one_and_includes_the_last_pixel() -> None:
    whole_image = np.array([[1, 1, 500, 375]])
    np.testing.assert_array_equal(geometry.from_inclusive(whole_image, 1), [[0, 0, 500, 375]])
    np.testing.assert_array_equal(
        geometry.from_inclusive(np.array([[0, 0, 9, 9]]), 0), [[0, 0, 10, 10]]
    )


@given(box_arrays())
def test_xywh_and_flips_are_inverted(a: Boxes) -> None:
    np.testing.assert_allclose(geometry.from_xywh(geometry.to_xywh(a)), a, atol=1e-9)
    flipped = geometry.flip_horizontally(a, 640)
    np.testing.assert_allclose(geometry.flip_horizontally(flipped, 640), a, atol=1e-9)
    np.testing.assert_allclose(geometry.area(flipped), geometry.area(a), rtol=1e-6)


@given(box_arrays())
def test_clipped_boxes_are_inside_the_image(a: Boxes) -> None:
    clipped = geometry.clip(a, 100, 80)
    assert clipped.min() >= 0
    assert clipped[:, [0, 2]].max() <= 100
    assert clipped[:, [1, 3]].max() <= 80
    touches = (a[:, 2] > 0) & (a[:, 3] > 0) & (a[:, 0] < 100) & (a[:, 1] < 80)
    np.testing.assert_array_equal(geometry.is_nonempty(clipped), touches)


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "area": lambda a, b: geometry.area(a),
    "intersection": geometry.intersection,
    "iou": geometry.iou,
    "clip": lambda a, b: geometry.clip(a, 50, 40),
    "is_nonempty": lambda a, b: geometry.is_nonempty(a),
    "scale": lambda a, b: geometry.scale(a, 2, 0.5),
    "flip": lambda a, b: geometry.flip_horizontally(a, 50),
    "from_inclusive": lambda a, b: geometry.from_inclusive(a, 1),
    "to_inclusive": lambda a, b: geometry.to_inclusive(a, 1),
    "from_xywh": lambda a, b: geometry.from_xywh(a),
    "to_xywh": lambda a, b: geometry.to_xywh(a),
    "encode": geometry.encode_deltas,
    "decode": lambda a, b: geometry.decode_deltas(a[:, None, :] / 100, b),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_torch_and_numpy_agree(name: str) -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    start = generator.uniform(0, 50, (2, 5, 2))
    a, b = np.concatenate([start, start + generator.uniform(1, 30, (2, 5, 2))], axis=2)
    expected = OPERATIONS[name](a, b)
    actual = OPERATIONS[name](torch.from_numpy(a), torch.from_numpy(b))
    assert isinstance(actual, torch.Tensor)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-12)


@given(box_arrays(largest_count=12), box_arrays(largest_count=12), st.integers(1, 40))
def test_best_overlaps_do_not_depend_on_the_blocks(a: Boxes, b: Boxes, pairs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "PAIRS_PER_BLOCK", pairs)
        if len(b) == 0:
            return
        best, match = geometry.find_best_overlaps(a, b)
    overlaps = geometry.iou(a, b)
    assert best.shape == match.shape == (len(a),)
    np.testing.assert_array_equal(best, overlaps.max(axis=1))
    np.testing.assert_array_equal(match, overlaps.argmax(axis=1))


def test_ten_thousand_boxes_are_compared_in_little_memory() -> None:
    corners = np.random.default_rng(0).uniform(0, 4000, (3000, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 20], axis=1)
    tracemalloc.start()
    try:
        best, match = geometry.find_best_overlaps(boxes, boxes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (best == 1).all()
    assert (match == np.arange(3000)).all()
    assert peak < 40e6  # 9 million pairs at once would take some 400 MB
