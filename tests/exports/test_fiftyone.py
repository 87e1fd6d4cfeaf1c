"""The FiftyOne export by its documented layout, and by what its importer does with the keys."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.engine.export.run import ExportSettings, run_export
from tests.exports.worlds import CLASSES, World
from tests.outputs import write_annotations, write_detections


def test_labels_and_data(world: World) -> None:
    world.export(ExportSettings("fiftyone"))
    labels, data = world.read_json("labels.json"), world.read_json("data.json")
    assert labels["classes"] == list(CLASSES)
    assert labels["labels"]["7"][0] == {
        "label": "cat",
        "bounding_box": [0.02, 0.02, 0.38, 0.58],
        "confidence": 0.9,
    }
    assert labels["labels"]["empty"] == []
    assert list(labels["labels"]) == ["7", "07", "b/c", "empty"]
    assert data["b/c.image"] == "/images/b/c.jpg"


def test_the_importer_finds_the_image_of_each_key(tmp_path: Path) -> None:
    """It removes the ending of a key of data.json, normalises the rest as a path, and looks it up."""
    ids: dict[str, list[object]] = {key: [] for key in ["a.b", "a/./b", "/abs", "..", "c/"]}
    manifest = write_annotations(str(tmp_path / "m.parquet"), ids, CLASSES)  # type: ignore[arg-type]
    detections = write_detections(str(tmp_path / "d"), manifest, ids, CLASSES)  # type: ignore[arg-type]
    world = World(tmp_path, manifest, detections)
    run_export(ExportSettings("fiftyone"), manifest, str(world.output), detections)
    stems = [key.removesuffix(".image") for key in world.read_json("data.json")]
    keys = set(map(os.path.normpath, stems))
    assert keys == set(world.read_json("labels.json")["labels"])
    assert len(keys) == 5
    assert not any(map(os.path.isabs, keys))
