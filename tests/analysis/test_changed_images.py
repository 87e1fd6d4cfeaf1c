"""The images on which two runs differ, by group, against a count image by image."""

from collections import Counter

import numpy as np

from pipeline.analysis.changed_images import LISTED, find_changed_groups
from pipeline.analysis.confusion import ConfusionCounts
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.matching import ERRORS
from pipeline.analysis.object_sizes import classify_sizes
from tests.analysis.scenes import draw_scenes

SCORES = (0.4, 0.5)


def draw_two_runs(images=50):
    """The matches of one set of objects, with all detections and without every third."""
    scenes = draw_scenes(images=images, seed=7, classes=3)
    matches = scenes.match()
    return scenes.classes, [(matches, score) for score in SCORES]


def count_by_image(matches, score):
    """Count the errors of each class, kind and size of each image, row by row."""
    counts = Counter()
    is_true, is_counted = find_true(matches), find_counted(matches)
    is_object = find_objects(matches)
    for i in range(len(matches)):
        row, is_high = int(matches.row[i]), matches.score[i] >= np.float32(score)
        if is_counted[i] and not is_true[i] and is_high:
            counts["class", int(matches.class_id[i]), row] += 1
            counts["error", 0, row] += 1
            if matches.error[i] < len(ERRORS) - 1:
                counts["error", 1 + int(matches.error[i]), row] += 1
        if is_object[i] and not (is_true[i] and is_high):
            counts["class", int(matches.class_id[i]), row] += 1
            counts["error", len(ERRORS), row] += 1
            width = float(matches.object_x2[i]) - float(matches.object_x1[i])
            height = float(matches.object_y2[i]) - float(matches.object_y1[i])
            counts["size", int(classify_sizes(np.array([width * height]))[0]), row] += 1
    return counts


def test_groups_have_the_images_that_differ():
    classes, runs = draw_two_runs()
    first, second = (count_by_image(*run) for run in runs)
    expected = {}
    for kind, position, row in first.keys() | second.keys():
        counts = first[kind, position, row], second[kind, position, row]
        if counts[0] != counts[1]:
            expected.setdefault((kind, position), set()).add((row, *counts))
    groups = find_changed_groups(runs, classes, [])
    assert {(g.kind, g.position): g.images for g in groups} == {
        key: len(changes) for key, changes in expected.items()
    }
    assert len(groups) > 6
    for group in groups:
        changes = [tuple(change) for change in group.changes.tolist()]
        assert len(changes) == min(group.images, LISTED)
        assert set(changes) <= expected[group.kind, group.position]
        sizes = [abs(second - first) for _, first, second in changes]
        assert sizes == sorted(sizes, reverse=True)


def test_cells_add_up_to_the_confusion_matrix():
    classes, runs = draw_two_runs()
    side = len(classes) + 1
    cells = [(i, j) for i in range(side) for j in range(side) if (i, j) != (side - 1, side - 1)]
    matrices = []
    for matches, score in runs:
        counts = ConfusionCounts(classes)
        counts.update(matches)
        matrices.append(counts.compute(score).to_array())
    groups = [g for g in find_changed_groups(runs, classes, cells) if g.kind == "cell"]
    assert len(groups) >= 4
    assert any(cells[g.position][1] == side - 1 for g in groups)
    for group in groups:
        assert group.images <= LISTED, "the test adds up the listed images"
        difference = int((group.changes[:, 2] - group.changes[:, 1]).sum())
        assert difference == (matrices[1] - matrices[0])[cells[group.position]]
    changed = {cells[g.position] for g in groups}
    for cell in cells:
        if cell not in changed:
            assert matrices[0][cell] == matrices[1][cell]


def test_equal_runs_have_no_groups():
    classes, runs = draw_two_runs(images=8)
    assert find_changed_groups([runs[0], runs[0]], classes, [(0, 0)]) == []
