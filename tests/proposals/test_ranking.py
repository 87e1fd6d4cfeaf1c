import numpy as np

from pipeline.proposals.ranking import assign_positions, find_first_occurrences, rank_boxes


class _ConstantRandom:
    """Replaces the random generator: equal numbers leave the order to the positions."""

    def random(self, count):
        return np.full(count, 0.5)


def _make_boxes(*names):
    return np.array([[n, 0, n + 1, 1] for n in names], np.int32).reshape(-1, 4)


def test_the_last_merge_comes_first_and_regions_come_once_at_the_end():
    regions = _make_boxes(1, 2, 3)
    boxes, positions = assign_positions(regions, (_make_boxes(12, 13), _make_boxes(22, 23)))
    assert boxes[:, 0].tolist() == [13, 12, 23, 22, 1, 2, 3]
    assert positions.tolist() == [1, 2, 1, 2, 3, 3, 3]


def test_a_single_region_is_its_own_hierarchy():
    boxes, positions = assign_positions(_make_boxes(5), (_make_boxes(), _make_boxes()))
    assert boxes[:, 0].tolist() == [5]
    assert positions.tolist() == [1]


def test_order_is_position_times_a_random_number():
    boxes, positions = _make_boxes(4, 3, 2, 1), np.array([4, 3, 2, 1])
    assert rank_boxes(boxes, positions, _ConstantRandom())[:, 0].tolist() == [1, 2, 3, 4]
    seed = np.random.default_rng(3).random(4)
    expected = boxes[np.argsort(positions * seed)]
    assert (rank_boxes(boxes, positions, np.random.default_rng(3)) == expected).all()


def test_the_first_of_duplicates_stays():
    boxes = np.array([[1, 2, 3, 4], [0, 0, 9, 9], [1, 2, 3, 4], [0, 0, 9, 9], [0, 0, 9, 8]])
    assert find_first_occurrences(boxes.astype(np.int32)).tolist() == [0, 1, 4]


def test_large_coordinates_are_distinguished():
    boxes = np.array([[0, 0, 65536, 1], [0, 1, 65536, 2], [1, 0, 65536, 1], [0, 0, 65535, 1]])
    assert find_first_occurrences(boxes.astype(np.int32)).tolist() == [0, 1, 2, 3]
