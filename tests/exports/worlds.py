"""Small datasets with everything that formats find difficult, and their exports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.export.run import ExportResult, ExportSettings, run_export
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

CLASSES = ("cat", "dog", "tree")
ANNOTATIONS = {
    "7": [make_object("cat", (1.5, 2, 40.25, 60)), make_object("dog", (10, 10, 90, 95.5))],
    "07": [make_object("cat", (0, 0, 50, 50), difficult=True)],
    "b/c": [make_object("dog", (20, 20, 80, 80), crowd=True), make_object("cat", (3, 3, 30, 30))],
    "empty": [],
    "broken": [make_object("tree", (5, 5, 25, 25))],
}
DETECTIONS = {
    "7": [
        ("cat", 0.9, (2, 2, 40, 60)),
        ("dog", 0.8, (12, 10, 90, 90)),
        ("cat", 0.3, (50, 50, 60, 60)),
    ],
    "07": [("cat", 0.7, (0, 0, 50, 48))],
    "b/c": [("dog", 0.6, (30, 30, 60, 60)), ("cat", 0.6, (4, 3, 30, 31.1))],
    "empty": [],
    "broken": FailedImage(message="=the file is empty"),
}


@dataclass(frozen=True)
class World:
    """A manifest with detections, in a folder."""

    folder: Path
    manifest: str
    detections: str

    def export(self, settings: ExportSettings, **options: Any) -> ExportResult:
        """Export the detections into the folder `out`."""
        return run_export(settings, self.manifest, str(self.output), self.detections, **options)

    def export_manifest(self, settings: ExportSettings, **options: Any) -> ExportResult:
        """Export the annotations into the folder `out`."""
        return run_export(settings, self.manifest, str(self.output), **options)

    @property
    def output(self) -> Path:
        """Where exports go."""
        return self.folder / "out"

    def read_json(self, name: str) -> Any:
        """Parse a file of the export."""
        return json.loads((self.output / name).read_text())


def write_world(folder: Path, **uris: str) -> World:
    """Write the annotations and detections above; images are `/images/<image_id>.jpg`."""
    manifest = write_annotations(str(folder / "m.parquet"), ANNOTATIONS, CLASSES, uris=uris or None)
    detections = write_detections(str(folder / "detections"), manifest, DETECTIONS, CLASSES)
    return World(folder, manifest, detections)
