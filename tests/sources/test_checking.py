from __future__ import annotations

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import check_labels, clip_objects


def test_objects_are_clipped_or_dropped_and_keep_their_flags() -> None:
    objects = [
        AnnotatedObject("dog", -2, 3, 12, 9, difficult=True),
        AnnotatedObject("cat", 4, 4, 4, 9),
        AnnotatedObject("owl", 1, 1, 2, 2, crowd=True),
    ]
    inside, repairs = clip_objects(objects, 10, 20, "here.xml")
    assert inside == (
        AnnotatedObject("dog", 0, 3, 10, 9, difficult=True),
        AnnotatedObject("owl", 1, 1, 2, 2, crowd=True),
    )
    assert [(r.noun, r.outcome, r.is_loss) for r in repairs] == [
        ("box", "clipped to the image", False),
        ("box", "dropped: no area", True),
    ]
    assert "here.xml: the box of object 1 (cat)" in repairs[1].detail
    assert "x1=4 y1=4 x2=4 y2=9" in repairs[1].detail


def test_labels_outside_the_classes_are_rejected() -> None:
    item = AnnotatedObject("owl", 0, 0, 1, 1)
    check_labels([item], frozenset({"owl"}), "file")
    with pytest.raises(UnreadableDataset, match="file: object 0 is of class 'owl'"):
        check_labels([item], frozenset({"cat"}), "file")
