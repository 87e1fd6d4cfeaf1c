"""Writes small datasets, which tests then damage in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import imaging

Box = tuple[str, float, float, float, float]


def write_image(path: Path, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.full((height, width, 3), 128, np.uint8)
    path.write_bytes(
        imaging.encode_png(grey) if path.suffix == ".png" else imaging.encode_jpeg(grey)
    )


def voc_xml(
    filename: str, *objects: Box, width: int = 40, height: int = 30, difficult: int = 0
) -> str:
    elements = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{elements}</annotation>"


def write_voc(root: Path) -> Path:
    """Write three images a (cat, dog), b (no object), c (dog) and the lists train (a, b) and test (c)."""
    objects: dict[str, list[Box]] = {
        "a": [("dog", 1, 1, 10, 20), ("cat", 5, 6, 40, 30)],
        "b": [],
        "c": [("dog", 11, 12, 20, 22)],
    }
    for name, boxes in objects.items():
        write_image(root / "JPEGImages" / f"{name}.jpg")
        annotation = root / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(voc_xml(f"{name}.jpg", *boxes))
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "test.txt").write_text("c\n")
    return root


def coco_content() -> dict[str, Any]:
    """Images 7 (two objects, one a crowd) and 3 (no object); the category ids are not in order."""
    return {
        "images": [
            {"id": 7, "file_name": "seven.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "three.png", "width": 20, "height": 10},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
    }


def write_coco(root: Path, content: Any) -> tuple[str, str]:
    """Write the dataset and return the URIs of its JSON file and image folder."""
    write_image(root / "images" / "seven.jpg")
    write_image(root / "images" / "three.png", 20, 10)
    file = root / "instances.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file), str(root / "images")
