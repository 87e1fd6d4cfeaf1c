"""Every command of docs/tutorial.md, typed on drawn images and with a small network."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import imaging
from pipeline.sources.drawn_dataset import DrawnImage, draw_image
from tests.jobs.command import run_job
from tests.sources.small_datasets import voc_xml

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
LABELS = ("circle", "cross", "star")
"""Those that the page names."""
ELSEWHERE = (". .venv/bin/activate", "python3 -m venv", "~/label-studio/", "LABEL_STUDIO_")
"""Starts of commands that set up this Python, or Label Studio in another."""
NETWORK = re.compile(r"--recipe mobilenet_v2 --weights \S+ --epochs \d+")
SMALL_NETWORK = "--recipe tiny --epochs 0.3 --workers 1"
PHOTOS, MORE = range(50), range(50, 62)
"""Numbers of the images that are labelled first, and of those that the detector labels."""


def read_commands() -> list[str]:
    """The commands of the page's code blocks in order, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if not line.startswith(("#", *ELSEWHERE))]


@pytest.fixture
def my(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `my` after a user has labelled, and below a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my"
    for name, numbers in (("photos", PHOTOS), ("more", MORE)):
        images = {f"photo_{index:03d}.jpg": _draw(index) for index in numbers}
        for place in (name, "yolo/images", "voc"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            for file_name, drawn in images.items():
                (folder / place / file_name).write_bytes(imaging.encode_jpeg(drawn.image))
        tasks = [_label(f"my/{name}/{n}", i, drawn) for i, (n, drawn) in enumerate(images.items())]
        labels = {"photos": "labels.json", "more": "more.json"}[name]
        (folder / labels).write_text(json.dumps(tasks))
        _write_other_labels(folder, images)
    return folder


def _draw(index: int) -> DrawnImage:
    """An image whose objects have three labels."""
    drawn = draw_image(np.random.default_rng([7, index]))
    labels = tuple(LABELS[hash_label % 3] for hash_label in map(len, drawn.labels))
    return DrawnImage(drawn.image, labels, drawn.boxes)


def _label(path: str, number: int, drawn: DrawnImage) -> dict[str, Any]:
    """A task of Label Studio's export, as it writes one for a file of its local storage."""
    height, width = drawn.image.shape[:2]
    results = []
    for label, (x1, y1, x2, y2) in zip(drawn.labels, drawn.boxes.tolist(), strict=True):
        corner = {"x": 100 * x1 / width, "y": 100 * y1 / height}
        sides = {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
        value = {**corner, **sides, "rotation": 0, "rectanglelabels": [label]}
        results.append(
            {
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "from_name": "label",
                "to_name": "image",
                "value": value,
            }
        )
    annotation = {"id": number, "result": results, "was_cancelled": False}
    image = f"/data/local-files/?d={path}"
    return {"id": number, "annotations": [annotation], "data": {"image": image}}


def _write_other_labels(my: Path, images: dict[str, DrawnImage]) -> None:
    """The same labels as YOLO and as VOC."""
    (my / "yolo" / "labels").mkdir(exist_ok=True)
    (my / "yolo" / "classes.txt").write_text("".join(f"{label}\n" for label in LABELS))
    for name, drawn in images.items():
        height, width = drawn.image.shape[:2]
        boxes = drawn.boxes.tolist()
        lines = [
            f"{LABELS.index(label)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
            f"{(x2 - x1) / width} {(y2 - y1) / height}\n"
            for label, (x1, y1, x2, y2) in zip(drawn.labels, boxes, strict=True)
        ]
        stem = name.removesuffix(".jpg")
        (my / "yolo" / "labels" / f"{stem}.txt").write_text("".join(lines))
        objects = [
            (label, int(x1) + 1, int(y1) + 1, int(x2), int(y2))
            for label, (x1, y1, x2, y2) in zip(drawn.labels, boxes, strict=True)
        ]
        (my / "voc" / f"{stem}.xml").write_text(voc_xml(name, *objects))


def _run(command: str) -> int:
    words = shlex.split(NETWORK.sub(SMALL_NETWORK, command))
    assert words[0] == "python", command
    if words[1] == "-m":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [words[2], *words[3:]])
            try:
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            except SystemExit as error:
                return int(error.code or 0)
        return 0
    match = re.fullmatch(r"jobs/(\w+)\.py", words[1])
    assert match, command
    return run_job(match[1], *words[2:])


@pytest.mark.usefixtures("ray_cluster")
def test_the_commands_of_the_tutorial(my: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = read_commands()
    trainings = [command for command in commands if "jobs/train.py" in command]
    assert len(commands) >= 14
    assert all(NETWORK.search(command) for command in trainings)
    for command in commands:
        code = _run(command)
        assert code == 0, f"{command}\n{capsys.readouterr()}"
    for path in (
        "report/index.html",
        "thresholds.json",
        "one.png",
        "tasks/labeling_config.xml",
        "more-yolo/data.yaml",
        "checkpoint-2/model.safetensors",
    ):
        assert (my / path).is_file(), path
    tasks = json.loads((my / "tasks" / "tasks.json").read_text())
    images = [task["data"]["image"] for task in tasks]
    assert images == [f"/data/local-files/?d=my/more/photo_{index:03d}.jpg" for index in MORE]
