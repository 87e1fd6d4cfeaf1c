"""Which boxes an export keeps."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.analysis.score_thresholds import ScoreThresholds
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.exports.box_selection import BoxSelection, join_classes

CLASSES = ("cat", "dog")


def keep(selection: BoxSelection, class_ids: list[int], scores: list[float] | None) -> list[bool]:
    array = None if scores is None else np.array(scores, np.float32)
    return selection.find_kept(np.array(class_ids), array).tolist()


def test_a_score_equal_to_the_limit_is_kept_though_it_is_a_float32() -> None:
    assert keep(BoxSelection(CLASSES, min_score=0.9), [0, 0], [0.9, 0.8999]) == [True, False]


def test_the_higher_of_both_limits_counts() -> None:
    selection = BoxSelection(CLASSES, (), 0.3, ScoreThresholds(0.5, {"cat": 0.2}))
    assert keep(selection, [0, 0, 1, 1], [0.25, 0.35, 0.4, 0.5]) == [False, True, False, True]


def test_labels() -> None:
    assert keep(BoxSelection(CLASSES, ("dog",)), [0, 1], None) == [False, True]
    with pytest.raises(InvalidConfiguration, match="--labels 'cow' is no class of this export"):
        BoxSelection(CLASSES, ("cow",))


def test_a_label_outside_the_classes_is_an_error() -> None:
    with pytest.raises(UnreadableDataset, match="not among the classes"):
        keep(BoxSelection(CLASSES), [0, -1], [0.5, 0.5])


def test_classes_of_the_manifest_come_first() -> None:
    assert join_classes(("dog", "cat"), ["cat", "cow"]) == ("dog", "cat", "cow")
    assert join_classes(None, ["cat"]) == ("cat",)
