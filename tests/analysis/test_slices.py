import numpy as np
import pytest

from pipeline.analysis.resampling import ImageSample, Resampler
from pipeline.analysis.side_table import read_side_table
from pipeline.analysis.slice_rules import Boxes, find_highest_overlaps
from pipeline.analysis.slices import SliceCounts, build_slice_table, find_slices, list_attributes
from tests.analysis.scenes import draw_scenes, evaluate_with_hotcoco, make_facts, make_scenes


def count(scenes, side=None, side_pixels=240.0):
    matches = scenes.match()
    counts = SliceCounts(scenes.classes, list_attributes(side))
    counts.update(matches, find_slices(matches, make_facts(scenes.images, side_pixels), side))
    return counts


def get_slices(slices, attribute):
    (group,) = [group for group in slices.attributes if group.attribute == attribute]
    return {row.name: row for row in group.slices}


def test_figures_by_hand():
    tall, wide, corner = (50, 50, 60, 90), (100, 50, 190, 80), (0, 0, 20, 20)
    scenes = make_scenes(
        1,
        ("cat",),
        [(0, "cat", tall), (0, "cat", wide), (0, "cat", corner)],
        [(0, "cat", 0.75, tall), (0, "cat", 0.25, wide), (0, "cat", 0.5, (140, 200, 150, 239))],
    )
    slices = count(scenes).compute(0.5)
    aspects = get_slices(slices, "aspect")
    assert (aspects["tall"].objects, aspects["tall"].true, aspects["tall"].false) == (1, 1, 1)
    assert aspects["tall"].precision.value == 0.5
    assert aspects["tall"].ap50 == 1
    assert (aspects["wide"].recall.value, aspects["wide"].ap50) == (0, 1)  # its score is too low
    assert aspects["square"].ap50 == 0
    borders = get_slices(slices, "border")
    assert (borders["at the border"].objects, borders["at the border"].false) == (1, 1)
    assert borders["inside"].recall.value == 0.5
    assert get_slices(slices, "image size")["up to 0.2 MP"].objects == 3
    assert get_slices(slices, "size")["small"].objects == 2


def test_crowdedness_is_of_objects_only():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", (0, 0, 10, 10)), (0, "dog", (5, 0, 15, 10)), (0, "dog", (100, 100, 120, 120))],
        [(0, "cat", 0.75, (0, 0, 10, 10)), (0, "dog", 0.75, (6, 0, 10, 4))],
    )
    rows = get_slices(count(scenes).compute(0.5), "crowdedness")
    assert (rows["crowded"].objects, rows["alone"].objects) == (2, 1)
    assert rows["crowded"].recall.value == 0.5
    assert (rows["crowded"].false, rows["crowded"].precision.value, rows["crowded"].ap50) == (
        None,
        None,
        None,
    )


def test_highest_overlaps_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 50, (40, 2)), rng.uniform(5, 40, (40, 2))
    boxes = Boxes(*corner.T, *(corner + side).T)
    image = np.sort(rng.integers(0, 5, 40))
    highest = find_highest_overlaps(image, boxes)
    assert highest.max() > 0.3
    for index in range(40):
        overlaps = [0.0]
        for other in np.flatnonzero(image == image[index]):
            inner = [
                min(boxes[k + 2][index], boxes[k + 2][other])
                - max(boxes[k][index], boxes[k][other])
                for k in (0, 1)
            ]
            if other != index and min(inner) > 0:
                shared = inner[0] * inner[1]
                union = side[index].prod() + side[other].prod() - shared
                overlaps.append(shared / union)
        assert highest[index] == pytest.approx(max(overlaps))


def test_ap50_of_a_side_tables_slices_is_hotcocos(tmp_path):
    scenes = draw_scenes(images=40, seed=4)
    # hotcoco knows no ties, so scores must differ by more than a level of score.
    scores = np.linspace(0.3, 0.99, len(scenes.detections.scores)).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(scores))
    scenes.detections.scores[:] = scores[order]
    rows = "".join(f"image {index},{'night' if index % 3 else 'day'}\n" for index in range(40))
    (tmp_path / "side.csv").write_text("image_id,time\n" + rows)
    side = read_side_table(f"{tmp_path}/side.csv")
    slices = get_slices(count(scenes, side).compute(0.5), "time")
    expected = evaluate_with_hotcoco(scenes).slice_by(
        lambda image: "night" if (image["id"] - 1) % 3 else "day"
    )
    for name in ("day", "night"):
        assert slices[name].ap50 == pytest.approx(expected[name]["AP50"], abs=2e-3)
        assert slices[name].ap50 > 0.1


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    facts = make_facts(scenes.images)
    merged = SliceCounts(scenes.classes, list_attributes())
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = SliceCounts(scenes.classes, list_attributes())
        counts.update(part, find_slices(part, facts))
        merged.merge(counts)
    assert merged.compute(0.25) == count(scenes).compute(0.25)


def test_an_unknown_image_size_is_in_no_slice():
    slices = count(draw_scenes(images=5), side_pixels=np.nan).compute(0.25)
    assert get_slices(slices, "image size") == {}
    assert get_slices(slices, "border") == {}
    assert get_slices(slices, "size") != {}


def test_rates_have_intervals_around_them():
    scenes = draw_scenes(images=60, seed=1)
    matches = scenes.match()
    positions = find_slices(matches, make_facts(scenes.images))
    sample = ImageSample()
    sample.update(matches, positions)
    counts = SliceCounts(scenes.classes, list_attributes())
    counts.update(matches, positions)
    slices = counts.compute(0.25, Resampler(sample, 200))
    for row in get_slices(slices, "aspect").values():
        assert row.recall.low < row.recall.value < row.recall.high
        assert row.precision.low < row.precision.value < row.precision.high
    table = build_slice_table(slices)
    assert len(table) == sum(len(group.slices) for group in slices.attributes)
