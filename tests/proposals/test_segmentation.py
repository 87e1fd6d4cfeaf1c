import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.proposals.edges import sort_edges
from pipeline.proposals.segmentation import segment_image
from pipeline.proposals.workspace import Workspace
from tests.proposals import reference
from tests.proposals.sample_images import draw_noise, images


def _segment(values, k, min_size=1, repeats=1):
    planes = np.asarray(values, np.float32)
    planes = planes[None] if planes.ndim == 2 else planes
    workspace = Workspace()
    edges = sort_edges(planes, repeats, workspace)
    return segment_image(edges, *planes.shape[1:], k, min_size, workspace)


def test_segments_of_four_pixels_match_a_hand_calculation():
    # Edges: 0 (third-fourth), 3 (first-second), 7 (second-third). At k = 5 the pairs have thresholds
    # 0 + 5/2 = 2.5 and 3 + 5/2 = 5.5, under 7; at k = 20 they have 10 and 13, over it.
    row = [[0, 3, 10, 10]]
    assert _segment(row, 5)[0].tolist() == [[0, 0, 1, 1]]
    assert _segment(row, 20)[0].tolist() == [[0, 0, 0, 0]]


def test_a_weight_equal_to_the_threshold_joins():
    assert len(_segment([[0, 5]], 5)[1]) == 1
    assert len(_segment([[0, 5]], 4.99)[1]) == 2


def test_diagonal_neighbours_are_joined():
    values = [[0, 200, 200], [200, 0, 200], [200, 200, 0]]
    labels, sizes = _segment(values, 1)
    assert labels[0, 0] == labels[1, 1] == labels[2, 2]
    assert sizes.tolist() == [3, 6]


def test_small_components_join_their_nearest_neighbour():
    values = [[0, 0, 0, 50, 70, 70, 70]]
    assert _segment(values, 1)[1].tolist() == [3, 1, 3]
    labels, sizes = _segment(values, 1, min_size=2)
    assert sizes.tolist() == [3, 4]
    assert labels.tolist() == [[0, 0, 0, 1, 1, 1, 1]]


def test_repeats_scale_the_weight():
    assert len(_segment([[0, 5]], 8, repeats=1)[1]) == 1
    assert len(_segment([[0, 5]], 8, repeats=3)[1]) == 2  # 5 x sqrt(3) = 8.66


def test_edges_are_sorted_by_weight_then_by_row():
    planes = np.random.default_rng(0).integers(0, 4, (2, 9, 11)).astype(np.float32)
    edges = sort_edges(planes, 1, Workspace())
    _, expected = reference.segment(planes, 1, 1, 1)
    weights = (edges >> 32).astype(np.int32).view(np.float32)
    offsets = np.array([1, 10, 11, 12])
    pixels = (edges & 0xFFFFFFFF) >> 2
    assert weights.tolist() == [weight for weight, _, _ in expected]
    others = pixels + offsets[edges & 3]
    assert sorted(zip(weights, pixels, others, strict=True)) == sorted(expected)
    rows = pixels // 11
    assert all(np.diff(rows[weights == weight]).min(initial=0) >= 0 for weight in set(weights))


def _make_distinct(planes, seed):
    # Noise makes almost all weights differ, as smoothing does in a photograph.
    random = np.random.default_rng(seed)
    return (planes + random.random(planes.shape) * 3).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    image=images(14),
    k=st.sampled_from([1.0, 20.0, 100.0, 1000.0]),
    min_size=st.integers(1, 30),
    repeats=st.sampled_from([1, 3]),
    has_ties=st.booleans(),
)
@example(image=draw_noise(269, 11, 11), k=1.0, min_size=10, repeats=1, has_ties=False)
def test_segments_equal_the_plain_reference(image, k, min_size, repeats, has_ties):
    planes = np.moveaxis(image, 2, 0).astype(np.float32)
    planes = planes if has_ties else _make_distinct(planes, 5)
    labels, sizes = _segment(planes, k, min_size, repeats)
    expected, _ = reference.segment(planes, repeats, k, min_size)
    assert (labels == expected).all()
    assert sizes.tolist() == np.bincount(expected.ravel()).tolist()


@settings(deadline=None, max_examples=40)
@given(image=images(24), k=st.sampled_from([5.0, 50.0, 300.0]), min_size=st.sampled_from([1, 9]))
def test_segments_partition_the_image_and_are_connected(image, k, min_size):
    planes = np.moveaxis(image, 2, 0).astype(np.float32)
    labels, sizes = _segment(planes, k, min_size)
    height, width = labels.shape
    assert sizes.sum() == height * width
    assert sizes.tolist() == np.bincount(labels.ravel(), minlength=len(sizes)).tolist()
    assert sizes.min() >= min(min_size, height * width)
    for label in range(len(sizes)):
        assert _is_connected(labels == label)
    first_pixels = [np.flatnonzero(labels.ravel() == label)[0] for label in range(len(sizes))]
    assert first_pixels == sorted(first_pixels)


def _is_connected(mask):
    waiting = {tuple(pixel) for pixel in np.argwhere(mask)}
    reached = [waiting.pop()]
    while reached:
        y, x = reached.pop()
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (y + dy, x + dx) in waiting:
                    waiting.remove((y + dy, x + dx))
                    reached.append((y + dy, x + dx))
    return not waiting


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 5000), (5000, 1), (2, 700)])
def test_any_shape_is_segmented(shape):
    planes = np.random.default_rng(1).integers(0, 255, (3, *shape)).astype(np.float32)
    labels, sizes = _segment(planes, 100, 20)
    assert labels.shape == shape
    assert sizes.sum() == shape[0] * shape[1]
