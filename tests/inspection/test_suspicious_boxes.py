"""Suspicious boxes, worked by hand."""

from __future__ import annotations

import numpy as np

from pipeline.inspection.suspicious_boxes import find_suspicious_boxes

BOXES = np.array(
    [
        [10, 10, 50, 50],  # repeated by the next one
        [10, 10, 50, 49],
        [10, 10, 50, 51],  # another class
        [-3, 0, 40, 40],  # outside
        [20, 20, 23, 60],  # tiny
        [0, 0, 90, 4],  # thin
        [10, 10, 50, 50],  # in another image
        [10, 10, 50, 50],  # a crowd
    ],
    np.float32,
)
LABELS = np.array([0, 0, 1, 0, 0, 0, 0, 0])
IMAGES = np.array([0, 0, 0, 0, 0, 0, 1, 1])
SIZES = np.array([[100, 80], [0, 0]])
CROWD = np.arange(len(BOXES)) == 7


def test_each_kind_is_found() -> None:
    flags = find_suspicious_boxes(BOXES, LABELS, IMAGES, SIZES, CROWD)
    found = {kind: np.flatnonzero(values).tolist() for kind, values in flags.items()}
    assert found == {
        "outside": [3],
        "tiny": [4],
        "thin": [5],
        "repeated": [0, 1],
        "two-classes": [0, 1, 2],
    }


def test_no_boxes_are_no_suspects() -> None:
    empty = np.empty(0, int)
    flags = find_suspicious_boxes(np.empty((0, 4), np.float32), empty, empty, SIZES, empty > 0)
    assert all(len(values) == 0 for values in flags.values())
