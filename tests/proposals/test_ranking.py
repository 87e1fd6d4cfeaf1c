import numpy as np

from pipeline.proposals.ranking import first_occurrences, hierarchy_positions, ranked


class _Constant:
    """Stands for the random generator: equal numbers leave the order to the positions."""

    def random(self, count):
        return np.full(count, 0.5)


def _boxes(*names):
    return np.array([[n, 0, n + 1, 1] for n in names], np.int32).reshape(-1, 4)


def test_the_last_merge_comes_first_and_regions_come_once_at_the_end():
    regions = _boxes(1, 2, 3)
    boxes, positions = hierarchy_positions(regions, (_boxes(12, 13), _boxes(22, 23)))
    assert boxes[:, 0].tolist() == [13, 12, 23, 22, 1, 2, 3]
    assert positions.tolist() == [1, 2, 1, 2, 3, 3, 3]


def test_a_single_region_is_its_own_hierarchy():
    boxes, positions = hierarchy_positions(_boxes(5), (_boxes(), _boxes()))
    assert boxes[:, 0].tolist() == [5]
    assert positions.tolist() == [1]


def test_order_is_position_times_a_random_number():
    boxes, positions = _boxes(4, 3, 2, 1), np.array([4, 3, 2, 1])
    assert ranked(boxes, positions, _Constant())[:, 0].tolist() == [1, 2, 3, 4]
    seed = np.random.default_rng(3).random(4)
    expected = boxes[np.argsort(positions * seed)]
    assert (ranked(boxes, positions, np.random.default_rng(3)) == expected).all()


def test_the_first_of_duplicates_stays():
    boxes = np.array([[1, 2, 3, 4], [0, 0, 9, 9], [1, 2, 3, 4], [0, 0, 9, 9], [0, 0, 9, 8]])
    assert first_occurrences(boxes.astype(np.int32)).tolist() == [0, 1, 4]


def test_large_coordinates_are_told_apart():
    boxes = np.array([[0, 0, 65536, 1], [0, 1, 65536, 2], [1, 0, 65536, 1], [0, 0, 65535, 1]])
    assert first_occurrences(boxes.astype(np.int32)).tolist() == [0, 1, 2, 3]
