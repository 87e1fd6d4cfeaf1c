"""Every format as another program writes it: panlabel converts a COCO file, and all sources read the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.sources.coco import open_coco
from pipeline.sources.cvat import open_cvat
from pipeline.sources.dataset import Dataset
from pipeline.sources.labelme import open_labelme
from pipeline.sources.labelstudio import open_labelstudio
from pipeline.sources.openimages import open_openimages
from pipeline.sources.voc import open_voc
from pipeline.sources.yolo import open_yolo
from tests.sources.small_datasets import write_image

_FOLDERS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
PANLABEL = shutil.which("panlabel", path=_FOLDERS)
pytestmark = pytest.mark.skipif(PANLABEL is None, reason="panlabel is not installed: see [dev]")

Boxes = dict[str, list[tuple[str, tuple[float, ...]]]]


def write_dataset(root: Path) -> Path:
    """Write ten images of several sizes with up to four boxes of three classes, as COCO."""
    generator = random.Random(0)
    images, annotations = [], []
    for number in range(1, 11):
        width, height = generator.randint(60, 120), generator.randint(50, 100)
        name = f"im_{number:02}.jpg"
        write_image(root / "images" / name, width, height)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(generator.randint(1, 4)):
            x, y = generator.uniform(0, width - 21), generator.uniform(0, height - 21)
            box = [x, y, generator.uniform(3, 20), generator.uniform(3, 20)]
            annotation = {"id": len(annotations) + 1, "image_id": number, "bbox": box}
            category = generator.randint(1, 3)
            annotations.append({**annotation, "category_id": category, "area": 1.0, "iscrowd": 0})
    names = ("cat", "dog", "traffic light")
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def list_boxes(dataset: Dataset) -> Boxes:
    return {
        Path(row.uri).name: sorted((o.label, (o.x1, o.y1, o.x2, o.y2)) for o in row.objects or ())
        for row in dataset.rows
    }


@pytest.mark.parametrize(
    ("name", "ending", "open_source", "tolerance"),
    [
        ("yolo", "", lambda out, _: open_yolo(str(out)), 0.01),
        ("cvat", ".xml", lambda out, images: open_cvat(str(out), images), 0.01),
        ("labelme", "", lambda out, _: open_labelme(str(out)), 0.01),
        ("label-studio", ".json", lambda out, images: open_labelstudio(str(out), images), 0.01),
        ("openimages", ".csv", lambda out, images: open_openimages(images, str(out)), 0.01),
        # VOC's boxes include their last pixel, which panlabel leaves to the reader.
        ("voc", "", lambda out, _: open_voc(str(out), None), 1.01),
    ],
)
def test_a_format_that_another_program_wrote(
    tmp_path: Path,
    name: str,
    ending: str,
    open_source: Callable[[Path, str], Dataset],
    tolerance: float,
) -> None:
    coco = write_dataset(tmp_path)
    output, images = tmp_path / f"out{ending}", str(tmp_path / "images")
    command = [str(PANLABEL), "convert", "-f", "coco", "-t", name, "-i", str(coco)]
    subprocess.run([*command, "-o", str(output), "--allow-lossy"], check=True, timeout=60)
    if not ending:
        folder = "JPEGImages" if name == "voc" else "images"
        shutil.copytree(images, output / folder, dirs_exist_ok=True)
    expected = list_boxes(open_coco(str(coco), images))
    dataset = open_source(output, images)
    boxes = list_boxes(dataset)
    assert dataset.classes == ("cat", "dog", "traffic light")
    assert boxes.keys() == expected.keys()
    for image, objects in expected.items():
        assert [label for label, _ in boxes[image]] == [label for label, _ in objects]
        for (_, corners), (_, others) in zip(boxes[image], objects, strict=True):
            assert corners == pytest.approx(others, abs=tolerance)
