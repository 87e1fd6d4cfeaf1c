"""Exports read again by the sources of their formats: the same images and objects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.engine.export.run import ExportSettings, run_export
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.dataset import Dataset
from pipeline.sources.labelstudio import open_labelstudio
from pipeline.sources.yolo import open_yolo
from tests.outputs import write_detections
from tests.sources.small_datasets import write_image

CLASSES = ("cat", "dog")


def _write_export(tmp_path: Path, settings: ExportSettings) -> tuple[list[ManifestRow], Path, Path]:
    """Rows, the folder of their images, and an export of detections that are exactly their objects."""
    images = tmp_path / "dataset"
    objects = {
        "a.jpg": (AnnotatedObject("dog", 1.25, 2, 40, 60.5), AnnotatedObject("cat", 0, 0, 100, 99)),
        "b.png": (),
    }
    rows = []
    for name, items in objects.items():
        write_image(images / name, 100, 100)
        rows.append(ManifestRow(name, str(images / name), 100, 100, items))
    manifest = str(tmp_path / "m.parquet")
    write_manifest(manifest, rows, CLASSES)
    detected = {
        row.image_id: [(o.label, 0.9, (o.x1, o.y1, o.x2, o.y2)) for o in row.objects or ()]
        for row in rows
    }
    detections = write_detections(str(tmp_path / "detections"), manifest, detected, CLASSES)
    run_export(settings, manifest, str(tmp_path / "out"), detections)
    return rows, images, tmp_path / "out"


def _check_same(rows: list[ManifestRow], again: Dataset) -> None:
    copies = {Path(row.uri).name: row for row in again.rows}
    assert again.classes == CLASSES
    for row in rows:
        copy = copies[Path(row.uri).name]
        assert (copy.width, copy.height) == (row.width, row.height)
        assert len(copy.objects or ()) == len(row.objects or ())
        for a, b in zip(copy.objects or (), row.objects or (), strict=True):
            assert a.label == b.label
            corners = [(item.x1, item.y1, item.x2, item.y2) for item in (a, b)]
            assert corners[0] == pytest.approx(corners[1], abs=1e-3)


def test_yolo(tmp_path: Path) -> None:
    rows, images, output = _write_export(tmp_path, ExportSettings("yolo", as_annotations=True))
    (output / "images").symlink_to(images)
    _check_same(rows, open_yolo(str(output), "train"))


def test_label_studio_after_a_review(tmp_path: Path) -> None:
    rows, images, output = _write_export(tmp_path, ExportSettings("label-studio"))
    tasks = json.loads((output / "tasks.json").read_text())
    for task in tasks:  # a person accepts each prediction as it is
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    (tmp_path / "reviewed.json").write_text(json.dumps(tasks))
    _check_same(rows, open_labelstudio(str(tmp_path / "reviewed.json"), str(images)))
