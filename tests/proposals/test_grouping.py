import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.proposals import colour
from pipeline.proposals.grouping import encode_measures, group_regions
from pipeline.proposals.hierarchy import build_hierarchies
from pipeline.proposals.strategy import Strategy
from pipeline.proposals.workspace import Workspace
from tests.proposals import reference
from tests.proposals.sample_images import images


def _group(labels, similarity):
    """Group by size and fill alone: no histograms."""
    labels = np.asarray(labels)
    regions = labels.max() + 1
    sizes = np.zeros(2 * regions - 1, np.int32)
    boxes = np.zeros((2 * regions - 1, 4), np.int32)
    sizes[:regions] = np.bincount(labels.ravel())
    boxes[:regions] = reference.find_boxes(labels)
    pairs = np.array(sorted(reference.find_adjacent(labels)), np.int32).reshape(-1, 2)
    none, no_values = np.empty((2 * regions - 1, 0), np.int32), np.zeros(len(pairs), np.int64)
    merges, similarities = group_regions(
        sizes,
        boxes,
        none,
        none,
        pairs,
        no_values,
        no_values,
        encode_measures(similarity),
        labels.size,
    )
    assert len(similarities) == len(merges)
    return merges.tolist(), boxes[regions:].tolist(), sizes.tolist()


def test_size_joins_the_smallest_regions_first():
    # 1 - (6 + 1) / 10 = 0.3 for the first two, 1 - (1 + 3) / 10 = 0.6 for the last two.
    merges, boxes, sizes = _group([[0, 0, 0, 0, 0, 0, 1, 2, 2, 2]], "S")
    assert merges == [[1, 2], [0, 3]]
    assert boxes == [[6, 0, 10, 1], [0, 0, 10, 1]]
    assert sizes == [6, 1, 3, 4, 10]


def test_fill_joins_regions_that_fill_their_box():
    # 0 is an L around 1: together they fill 2x2. 0 with 2 fills 5 of 6, 1 with 2 3 of 4.
    labels = [[0, 1, 2], [0, 0, 2]]
    merges, boxes, _ = _group(labels, "F")
    assert merges[0] == [0, 1]
    assert boxes == [[0, 0, 2, 2], [0, 0, 3, 2]]


def test_the_earliest_of_equally_similar_pairs_is_joined():
    merges, _, _ = _group([[0, 1, 2, 3]], "S")
    assert merges == [[0, 1], [2, 3], [4, 5]]


def test_one_region_has_no_hierarchy():
    merges, boxes, sizes = _group([[0, 0]], "SF")
    assert merges == []
    assert boxes == []
    assert sizes == [2]


@settings(deadline=None, max_examples=25)
@given(
    image=images(12),
    space=st.sampled_from(["RGB", "HSV", "C", "H"]),
    similarity=st.sampled_from(["CTSF", "TSF", "S", "F", "C", "T", "CF"]),
)
def test_every_merge_joins_the_most_similar_pair(image, space, similarity):
    planes = np.empty((colour.count_channels(space), *image.shape[:2]), np.uint8)
    colour.convert_colours(image, space, planes)
    derivatives = reference.compute_orientations(planes)
    if _is_near_bin_edge(derivatives):
        return
    strategy = Strategy((space,), (similarity,), (20.0,), min_size=4)
    (segmentation,) = build_hierarchies(image, strategy, Workspace())
    masks = {r: segmentation.labels == r for r in range(len(segmentation.boxes))}
    live_nodes = set(masks)
    touching = reference.find_adjacent(segmentation.labels)
    for step, (a, b) in enumerate(segmentation.merges[0].tolist()):
        values = {
            pair: reference.compute_similarity(
                masks[pair[0]], masks[pair[1]], planes, derivatives, similarity
            )
            for pair in touching
        }
        assert values[min(a, b), max(a, b)] >= max(values.values()) - 2e-6
        merged_node = len(segmentation.boxes) + step
        masks[merged_node] = masks[a] | masks[b]
        live_nodes = (live_nodes - {a, b}) | {merged_node}
        pairs = ((merged_node if n in (a, b) else n for n in pair) for pair in touching)
        touching = {(min(p), max(p)) for p in map(tuple, pairs) if p[0] != p[1]}
        y, x = np.nonzero(masks[merged_node])
        box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert segmentation.merged_boxes[0][step].tolist() == box
        assert segmentation.merged_sizes[0][step] == masks[merged_node].sum()
        assert abs(segmentation.similarities[0][step] - max(values.values())) < 2e-6
    assert len(live_nodes) == 1


def _is_near_bin_edge(derivatives):
    steps = np.abs(derivatives) / (0.43 * 255) * 9 + 0.5
    return np.abs(steps - np.rint(steps)).min() < 1e-5


@settings(deadline=None, max_examples=25)
@given(image=images(24), similarity=st.sampled_from(["CTSF", "TSF", "S", "T"]))
def test_a_hierarchy_has_2n_minus_1_nodes(image, similarity):
    strategy = Strategy(("HSV",), (similarity,), (30.0,), min_size=5)
    (segmentation,) = build_hierarchies(image, strategy, Workspace())
    regions = len(segmentation.boxes)
    merges = segmentation.merges[0]
    assert merges.shape == (regions - 1, 2)
    children = merges.ravel().tolist()
    assert sorted(children) == list(range(2 * regions - 2))  # all but the root, each once
    assert all(max(pair) < regions + step for step, pair in enumerate(merges.tolist()))
    if regions > 1:
        height, width = image.shape[:2]
        assert segmentation.merged_boxes[0][-1].tolist() == [0, 0, width, height]


def test_a_background_around_many_dots_is_grouped_correctly():
    # Every merge replaces the background's edges to all remaining dots: a quarter of a million in all,
    # of which the kernel keeps only the live ones. By size, the smallest dot is merged next each time.
    random = np.random.default_rng(0)
    labels = np.zeros((120, 120), np.int32)
    widths = random.integers(1, 5, 720)
    for dot, width in enumerate(widths.tolist(), start=1):
        y, x = divmod(dot - 1, 18)
        labels[3 * y + 1, 6 * x + 1 : 6 * x + 1 + width] = dot
    merges, _, sizes = _group(labels, "S")
    assert sizes[-1] == labels.size
    assert len(merges) == 720
    joined = [min(pair) if step else max(pair) for step, pair in enumerate(merges)]
    assert sorted(joined) == list(range(1, 721))
    assert [sizes[dot] for dot in joined] == sorted(widths.tolist())


def test_an_unknown_measure_raises_key_error():
    with pytest.raises(KeyError):
        encode_measures("X")
