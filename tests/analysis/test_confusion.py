import numpy as np
import pytest

from pipeline.analysis.confusion import ConfusionCounts, build_confusion_table
from pipeline.analysis.resampling import ImageSample, Resampler
from tests.analysis.scenes import draw_scenes, evaluate_with_hotcoco, make_scenes

A, B, C = (0, 0, 10, 10), (50, 50, 90, 90), (100, 0, 140, 40)
NOWHERE = (200, 200, 220, 220)


def count(scenes, iou=0.5):
    counts = ConfusionCounts(scenes.classes, iou)
    counts.update(scenes.match())
    return counts


def test_cells_by_hand():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "cat", B), (0, "dog", C)],
        [
            (0, "cat", 0.75, A),
            (0, "dog", 0.9, B),  # a cat that is called dog
            (0, "cat", 0.75, B),  # a worse detection of the same object
            (0, "dog", 0.75, NOWHERE),
            (0, "dog", 0.25, C),  # too low, so this dog is missed
        ],
    )
    matrix = count(scenes).compute(0.5)
    assert matrix.to_array().tolist() == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]
    shares = {(cell.object, cell.detection): cell.share.value for cell in matrix.cells}
    assert shares["cat", "dog"] == 0.5
    assert shares["dog", None] == 1
    assert count(scenes).compute(0.25).to_array()[1].tolist() == [0, 1, 0]


def test_the_matrix_is_hotcocos_if_objects_are_apart():
    scenes = draw_scenes(images=60, apart=True)
    for iou, score in ((0.5, 0.0), (0.5, 0.5), (0.75, 0.25)):
        expected = evaluate_with_hotcoco(scenes).confusion_matrix(
            iou_thr=iou, max_det=None, min_score=score or None
        )["matrix"]
        matrix = count(scenes, iou).compute(score or -1.0).to_array()
        np.testing.assert_array_equal(matrix, expected)
        assert (np.diag(matrix)[:-1] > 0).all()
        assert matrix[:-1, -1].all()
        assert matrix[-1, :-1].all()


def test_ignored_objects_have_no_cells():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "cat", B)],
        [(0, "cat", 0.9, A), (0, "dog", 0.8, A), (0, "cat", 0.9, (55, 55, 65, 65))],
        difficult=(0,),
        crowd=(1,),
    )
    # A dog on a difficult cat is no error either; the last detection is inside a crowd of its label.
    assert count(scenes).compute(0.5).to_array().sum() == 0


def test_results_do_not_depend_on_the_grouping():
    scenes = draw_scenes(images=30, seed=1, flags=True)
    merged = ConfusionCounts(scenes.classes)
    for part in reversed(scenes.match_parts([7, 8, 20])):
        counts = ConfusionCounts(scenes.classes)
        counts.update(part)
        merged.merge(counts)
    assert merged.compute(0.25) == count(scenes).compute(0.25)


def test_shares_have_intervals_around_them():
    scenes = draw_scenes(images=60, seed=1)
    sample = ImageSample()
    sample.update(scenes.match())
    resampler = Resampler(sample, 200)
    for cell in count(scenes).compute(0.25, resampler).cells:
        assert 0 <= cell.share.low <= cell.share.value <= cell.share.high <= 1
        if cell.count > 10:
            assert cell.share.low < cell.share.value < cell.share.high


def test_the_table_has_a_row_per_cell():
    matrix = count(draw_scenes(images=5)).compute(0.25)
    table = build_confusion_table(matrix)
    assert len(table) == len(matrix.cells)
    assert sum(table.column("count").to_pylist()) == matrix.to_array().sum()
    assert table.column("share").to_pylist()[0] == pytest.approx(matrix.cells[0].share.value)
