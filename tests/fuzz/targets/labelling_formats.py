"""Annotations of labelling tools with one change each: what is read of them must be possible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from pipeline.sources.cvat import open_cvat
from pipeline.sources.dataset import Dataset
from pipeline.sources.labelme import open_labelme
from pipeline.sources.labelstudio import open_labelstudio
from pipeline.sources.lvis import open_lvis
from pipeline.sources.openimages import open_openimages
from pipeline.sources.yolo import open_yolo
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.mutators.values import draw_number, draw_text, shorten
from tests.fuzz.target import Target
from tests.fuzz.targets.source_answers import (
    OPTIONS,
    SourceAnswer,
    build_manifest,
    find_fault_in_rows,
    find_wrong_size,
)
from tests.sources.test_cvat import BOX, write_cvat
from tests.sources.test_labelme import DOG, annotation, shape, write_labelme
from tests.sources.test_labelstudio import region, task, write_export
from tests.sources.test_lvis import lvis_content, write_lvis
from tests.sources.test_openimages import write_openimages
from tests.sources.test_yolo import write_yolo

_VALUE = re.compile(r"[\w./-]+")


def _change_file(path: Path, random: Random) -> str:
    """Change one word of a text file, or one of its bytes."""
    data = path.read_bytes()
    if random.random() < 0.3:
        data, change = mutate_bytes(data, random)
    else:
        word = random.choice(list(_VALUE.finditer(data.decode())))
        text = str(draw_number(random) if random.random() < 0.6 else draw_text(random))
        start, end = (len(data.decode()[:place].encode()) for place in word.span())
        data = data[:start] + text.encode("utf-8", "surrogatepass") + data[end:]
        change = f"{word[0][:20]} = {shorten(text)}"
    path.write_bytes(data)
    return f"{path.name}: {change}"


def _change_json(path: Path, content: Any, random: Random) -> str:
    changed, change = mutate_json(content, random)
    data, form = encode_json(changed, random)
    path.write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _write_yolo(folder: Path, random: Random) -> str:
    write_yolo(folder)
    names = ("data.yaml", "labels/train/a.txt", "labels/train/a.txt")
    return _change_file(folder / random.choice(names), random)


def _write_openimages(folder: Path, random: Random) -> str:
    write_openimages(folder)
    return _change_file(folder / random.choice(("boxes.csv", "boxes.csv", "classes.csv")), random)


def _write_cvat(folder: Path, random: Random) -> str:
    polygon = '<polygon label="cat" points="1,2;9.5,3;4,8"/>'
    return _change_file(Path(write_cvat(folder, BOX, polygon)[0]), random)


def _write_lvis(folder: Path, random: Random) -> str:
    annotations, _ = write_lvis(folder, {})
    return _change_json(Path(annotations), lvis_content(), random)


def _write_labelme(folder: Path, random: Random) -> str:
    write_labelme(folder, DOG)
    circle = shape("cat", (9, 9), (9, 12), shape_type="circle")
    return _change_json(folder / "a.json", annotation("a.jpg", DOG, circle), random)


def _write_labelstudio(folder: Path, random: Random) -> str:
    annotations, _ = write_export(folder)
    polygon = region("polygon", points=[[10, 10], [50, 20], [30, 90]])
    tasks = [task("a.jpg", region(), polygon), task("sub/b.jpg")]
    return _change_json(Path(annotations), json.loads(json.dumps(tasks)), random)


def _find_fault(folder: Path, answer: SourceAnswer) -> str | None:
    faults = [find_fault_in_rows(answer.rows, answer.classes), *map(find_wrong_size, answer.rows)]
    outside = (row["uri"] for row in answer.rows if not row["uri"].startswith(f"{folder}/"))
    return next(filter(None, [*faults, *outside]), None)


def _make_target(
    kind: str, write: Callable[[Path, Random], str], open_source: Callable[[Path], Dataset]
) -> Target:
    def read(folder: Path) -> SourceAnswer:
        return build_manifest(open_source(folder), folder)

    return Target(kind, write, read, _find_fault, lambda answer: answer.skipped)


TARGETS = (
    _make_target("yolo", _write_yolo, lambda root: open_yolo(str(root), "train", OPTIONS)),
    _make_target(
        "openimages",
        _write_openimages,
        lambda root: open_openimages(
            str(root / "images"), str(root / "boxes.csv"), str(root / "classes.csv"), OPTIONS
        ),
    ),
    _make_target(
        "lvis",
        _write_lvis,
        lambda root: open_lvis(str(root / "lvis.json"), str(root / "images"), options=OPTIONS),
    ),
    _make_target(
        "cvat",
        _write_cvat,
        lambda root: open_cvat(
            str(root / "annotations.xml"), str(root / "images"), options=OPTIONS
        ),
    ),
    _make_target("labelme", _write_labelme, lambda root: open_labelme(str(root), options=OPTIONS)),
    _make_target(
        "labelstudio",
        _write_labelstudio,
        lambda root: open_labelstudio(
            str(root / "export.json"), str(root / "images"), options=OPTIONS
        ),
    ),
)
