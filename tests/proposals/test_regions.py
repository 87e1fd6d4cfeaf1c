import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.proposals.regions import fill_bounding_boxes, find_adjacent_pairs
from tests.proposals import reference


@st.composite
def labellings(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    count = draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    _, labels = np.unique(random.integers(0, count, (height, width)), return_inverse=True)
    return labels.reshape(height, width).astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(labellings())
def test_boxes_and_pairs_equal_the_plain_reference(labels):
    count = labels.max() + 1
    boxes = np.empty((count, 4), np.int32)
    fill_bounding_boxes(labels, boxes)
    assert (boxes == reference.find_boxes(labels)).all()
    pairs = find_adjacent_pairs(labels, count)
    assert len(pairs) == len({tuple(pair) for pair in pairs.tolist()})
    assert {tuple(pair) for pair in pairs.tolist()} == reference.find_adjacent(labels)


def test_pairs_come_in_the_order_of_first_contact():
    labels = np.array([[0, 1], [2, 2]], np.int32)
    assert find_adjacent_pairs(labels, 3).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_the_table_grows_for_more_pairs_than_planar_regions_have():
    # The table is sized for planar regions and must grow for labels scattered at random.
    random = np.random.default_rng(0)
    labels = random.integers(0, 40, (200, 200)).astype(np.int32)
    pairs = find_adjacent_pairs(labels, 40)
    assert len(pairs) == 40 * 39 // 2
