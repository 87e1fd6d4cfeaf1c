from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidBox, UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import check_inside, clip_objects

COORDINATE = st.floats(-200, 300, width=32)


@given(COORDINATE, COORDINATE, COORDINATE, COORDINATE)
def test_a_box_is_clipped_dropped_or_rejected(x1: float, y1: float, x2: float, y2: float) -> None:
    is_valid = x1 <= x2 and y1 <= y2
    touches = x2 > 0 and y2 > 0 and x1 < 100 and y1 < 50
    item = AnnotatedObject("dog", x1, y1, x2, y2, difficult=True)
    try:
        clipped, dropped = clip_objects([item], 100, 50, "file")
    except InvalidBox:
        assert not (is_valid and touches)
        return
    assert is_valid
    assert len(clipped) + dropped == 1
    for box in clipped:
        assert touches
        assert box.difficult
        assert 0 <= box.x1 < box.x2 <= 100
        assert 0 <= box.y1 < box.y2 <= 50
    if dropped:
        assert x1 == x2 or y1 == y2 or min(x2 - x1, y2 - y1, x2, y2, 100 - x1, 50 - y1) < 1e-4


def test_labels_outside_the_classes_are_rejected() -> None:
    item = AnnotatedObject("owl", 0, 0, 1, 1)
    assert clip_objects([item], 9, 9, "file", frozenset({"owl"})) == ((item,), 0)
    with pytest.raises(UnreadableDataset, match="object 0 is of class 'owl'"):
        clip_objects([item], 9, 9, "file", frozenset({"cat"}))


@pytest.mark.parametrize("path", ["a.jpg", "sub/a.jpg", "a..b.jpg", "ä b.jpg"])
def test_paths_inside_the_dataset_pass(path: str) -> None:
    check_inside(path, "file")


@pytest.mark.parametrize(
    "path", ["..", "../a", "a/../../b", "/a", "\\a", "a\\..\\..\\b", "c:/a", "s3://b/a", "."]
)
def test_paths_outside_the_dataset_are_rejected(path: str) -> None:
    with pytest.raises(UnreadableDataset, match=r"file names .* leaves"):
        check_inside(path, "file")
