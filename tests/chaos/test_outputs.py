"""The comparison of rows: detections within a tolerance, everything else exactly."""

from __future__ import annotations

from typing import Any

from tests.chaos.outputs import is_same

DETECTION = {
    "label": "cat",
    "label_id": 0,
    "score": 0.5,
    "x1": 1.0,
    "y1": 2.0,
    "x2": 3.0,
    "y2": 4.0,
}
DETECTED: dict[str, Any] = {"image_id": "a", "status": "ok", "detections": [DETECTION]}
PROPOSED: dict[str, Any] = {"image_id": "a", "status": "ok", "boxes": [[1.0, 2.0, 3.0, 4.0]]}


def test_scores_and_corners_of_detections_may_differ_a_little() -> None:
    def change(**values: Any) -> dict[str, Any]:
        return DETECTED | {"detections": [DETECTION | values]}

    assert is_same(DETECTED, change(score=0.5009, x1=1.09))
    assert not is_same(DETECTED, change(score=0.502))
    assert not is_same(DETECTED, change(x1=1.11))
    assert not is_same(DETECTED, change(label="dog"))
    assert not is_same(DETECTED, DETECTED | {"status": "failed", "detections": None})


def test_proposals_must_be_equal() -> None:
    assert is_same(PROPOSED, PROPOSED | {"boxes": [[1.0, 2.0, 3.0, 4.0]]})
    assert not is_same(PROPOSED, PROPOSED | {"boxes": [[1.0, 2.0, 3.0, 4.01]]})
    assert not is_same(PROPOSED, PROPOSED | {"boxes": []})
    assert not is_same(PROPOSED, {"image_id": "a", "status": "ok"})
