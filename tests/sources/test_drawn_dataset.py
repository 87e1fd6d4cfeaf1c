from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import geometry
from pipeline.sources.drawn_dataset import CLASSES, draw_dataset, draw_image
from pipeline.sources.drawn_shapes import SHAPES
from pipeline.sources.voc import open_voc


def test_the_drawn_dataset_is_valid_voc(tmp_path: Path) -> None:
    draw_dataset(tmp_path, train=6, test=3, seed=1)
    train, test = open_voc(str(tmp_path), "train"), open_voc(str(tmp_path), "test")
    rows = [*train.rows, *test.rows]
    assert (train.tally.images, test.tally.images) == (6, 3)
    assert len({row.image_id for row in rows}) == 9
    drawn = draw_image(np.random.default_rng([1, 2]))
    assert [item.label for item in rows[2].objects or ()] == list(drawn.labels)
    stored = [(o.x1, o.y1, o.x2, o.y2) for o in rows[2].objects or ()]
    np.testing.assert_array_equal(np.array(stored, np.float32), drawn.boxes)
    assert (rows[2].height, rows[2].width) == drawn.image.shape[:2]


def test_equal_seeds_draw_equal_files(tmp_path: Path) -> None:
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        draw_dataset(tmp_path / name, train=2, test=0, seed=seed)
    files = {
        name: (tmp_path / name / "JPEGImages" / "drawn_00001.jpg").read_bytes()
        for name in ("first", "again", "other")
    }
    assert files["first"] == files["again"] != files["other"]


def test_boxes_are_inside_the_image_and_barely_overlap() -> None:
    labels: set[str] = set()
    for index in range(40):
        drawn = draw_image(np.random.default_rng([0, index]))
        height, width = drawn.image.shape[:2]
        labels.update(drawn.labels)
        assert 1 <= len(drawn.labels) == len(drawn.boxes) <= 4
        assert geometry.is_nonempty(drawn.boxes).all()
        np.testing.assert_array_equal(drawn.boxes, geometry.clip(drawn.boxes, width, height))
        assert (drawn.boxes[:, 2:] - drawn.boxes[:, :2]).min() >= 16
        others = geometry.iou(drawn.boxes, drawn.boxes) - np.eye(len(drawn.boxes))
        assert others.max() <= 0.2
    assert labels == set(CLASSES)


def test_boxes_are_tight_to_the_pixels_of_the_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a plain background, the pixels that the objects change span exactly their boxes."""
    monkeypatch.setattr(
        "pipeline.sources.drawn_dataset.draw_background",
        lambda width, height, generator: np.full((height, width, 3), 128.0),
    )
    for index in range(12):
        drawn = draw_image(np.random.default_rng([3, index]))
        changed = np.abs(drawn.image.astype(int) - 128).max(axis=2) > 0
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        span = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        union = np.concatenate([drawn.boxes[:, :2].min(axis=0), drawn.boxes[:, 2:].max(axis=0)])
        assert np.abs(union - span).max() <= 1  # a rim of half-covered pixels is outside


def test_shapes_are_closed_and_near_the_unit_circle() -> None:
    v, u = np.mgrid[-1.5:1.5:301j, -1.5:1.5:301j]
    for shape in SHAPES.values():
        is_inside = shape(u, v) < 0
        reach = np.hypot(u, v)[is_inside].max()
        assert 0.9 < reach < 1.2
        assert 0.1 < is_inside.mean() < 0.5
