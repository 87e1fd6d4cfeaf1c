from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.sources.coco_segmentation import compute_hull


def test_polygons_give_the_box_around_all_of_them() -> None:
    assert compute_hull([[1, 2, 5, 2, 5, 9], [0, 4, 1, 4, 1, 6.5]], "here") == (0, 2, 5, 7)
    assert compute_hull([1, 2, 5, 2, 5, 9], "here") == (1, 2, 4, 7)


def test_run_lengths_count_down_the_columns() -> None:
    # 4 rows, 5 columns: rows 1 and 2 of column 1, row 0 of column 3
    runs = {"size": [4, 5], "counts": [5, 2, 5, 1, 7]}
    assert compute_hull(runs, "here") == (1, 0, 3, 3)
    # one run from row 3 of column 0 to row 0 of column 2 spans whole columns
    assert compute_hull({"size": [4, 5], "counts": [3, 6, 11]}, "here") == (0, 0, 3, 4)


def test_compressed_run_lengths_are_decoded() -> None:
    # 5, 2, 5, then differences to two before: 1 - 2 = -1 ("O" = 31), 7 - 5 = 2
    assert compute_hull({"size": [4, 5], "counts": "525O2"}, "here") == (1, 0, 3, 3)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [["a"] * 6],
        [[True] * 6],
        [{}],
        "text",
        {"size": [4, 5], "counts": [20]},
        {"size": [4, 5], "counts": [5, 2]},
        {"size": [4], "counts": [5, 2, 13]},
        {"size": [4, 5], "counts": [5, -2, 17]},
        {"size": [4, 5], "counts": "\x00"},
        {"counts": [5, 2, 13]},
    ],
)
def test_other_segmentations_are_rejected(segmentation: Any) -> None:
    with pytest.raises(UnreadableDataset, match="here: field segmentation"):
        compute_hull(segmentation, "here")
