"""The YOLO export by the rules of Ultralytics' documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.export.run import ExportSettings, run_export
from pipeline.errors import UnreadableDataset
from pipeline.exports.yolo import quote_yaml
from tests.exports.worlds import CLASSES, World
from tests.outputs import write_annotations, write_detections


def read_labels(path: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in path.read_text().splitlines()]


def test_a_line_has_class_centre_sides_and_score(world: World) -> None:
    world.export(ExportSettings("yolo"))
    assert read_labels(world.output / "labels/7.txt") == [
        [0, 0.21, 0.31, 0.38, 0.58, 0.9],
        [1, 0.51, 0.5, 0.78, 0.8, 0.8],
        [0, 0.55, 0.55, 0.1, 0.1, 0.3],
    ]
    assert (world.output / "labels/empty.txt").read_text() == ""
    assert not (world.output / "labels/broken.txt").exists()


def test_training_labels_have_five_columns_beside_the_configuration(world: World) -> None:
    world.export(ExportSettings("yolo", as_annotations=True))
    for path in world.output.rglob("labels/**/*.txt"):
        for class_id, *box in read_labels(path):
            assert class_id in range(len(CLASSES))
            assert len(box) == 4
            assert all(0 <= share <= 1 for share in box)
    configuration = yaml.safe_load((world.output / "data.yaml").read_text())
    assert configuration["names"] == dict(enumerate(CLASSES))
    assert {"path", "train", "val"} <= configuration.keys()


def test_labels_are_named_like_their_images(tmp_path: Path) -> None:
    """Ultralytics looks for labels/<path>.txt beside images/<path>.jpg, whatever the image_id is."""
    ids = {"139": [], "285": []}
    uris = {"139": "s3://b/val/000139.jpg", "285": "s3://b/val/sub.x/000285.png"}
    manifest = write_annotations(str(tmp_path / "m.parquet"), ids, CLASSES, uris=uris)
    detections = write_detections(str(tmp_path / "d"), manifest, ids, CLASSES)
    run_export(ExportSettings("yolo"), manifest, str(tmp_path / "out"), detections)
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("*.txt"))
    assert names == ["labels/000139.txt", "labels/sub.x/000285.txt"]


def test_images_that_would_share_labels_are_rejected(tmp_path: Path) -> None:
    ids = {"a.jpg": [], "a.png": []}
    uris = {image_id: f"/images/{image_id}" for image_id in ids}
    manifest = write_annotations(str(tmp_path / "m.parquet"), ids, CLASSES, uris=uris)
    detections = write_detections(str(tmp_path / "d"), manifest, ids, CLASSES)
    with pytest.raises(UnreadableDataset, match=r"'a\.jpg' and 'a\.png' would share"):
        run_export(ExportSettings("yolo"), manifest, str(tmp_path / "out"), detections)
    assert not (tmp_path / "out").exists()


@given(st.text())
def test_yaml_reads_any_class(label: str) -> None:
    if "\ud800" <= max(label, default="") <= "\udfff":
        return
    assert yaml.safe_load(f"names:\n  0: {quote_yaml(label)}\n") == {"names": {0: label}}
