"""A COCO instances file with changed values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from pipeline.sources.coco import open_coco
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.target import Target
from tests.fuzz.targets.source_answers import (
    OPTIONS,
    ExpectedObject,
    SourceAnswer,
    build_manifest,
    find_fault_in_rows,
    find_wrong_objects,
    find_wrong_size,
    is_true_word,
)
from tests.sources.small_datasets import coco_content, write_coco


def _write(folder: Path, random: Random) -> str:
    write_coco(folder, "{}")
    content = coco_content()
    content["annotations"][0]["ignore"] = 0
    content["annotations"].append(
        {
            "id": 3,
            "image_id": 3,
            "category_id": 1,
            "segmentation": [[1, 1, 9, 1, 9, 8]],
            "iscrowd": 0,
        }
    )
    changed, change = mutate_json(content, random)
    data, form = encode_json(changed, random)
    (folder / "instances.json").write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _read(folder: Path) -> SourceAnswer:
    dataset = open_coco(str(folder / "instances.json"), str(folder / "images"), options=OPTIONS)
    return build_manifest(dataset, folder)


def _find_fault(folder: Path, answer: SourceAnswer) -> str | None:
    content = json.loads((folder / "instances.json").read_bytes())
    faults = [find_fault_in_rows(answer.rows, answer.classes), *map(find_wrong_size, answer.rows)]
    fault = next(filter(None, faults), None)
    if fault is not None:
        return fault
    listed = {_find_id(record.get("id")) for record in content["images"]}
    if len(answer.rows) + answer.tally.invalid_images < len(listed - {None}):
        return f"{len(listed)} images are listed, {answer.tally.images} read and none said to be left out"
    names = _list_names(content)
    for row in answer.rows:
        expected = []
        for record in _list_annotations(content, row["image_id"]):
            label = names.get(_find_id(record.get("category_id")))
            box = _find_box(record)
            if label is None or isinstance(box, str):
                return f"image {row['image_id']!r}: the annotation {record} is accepted"
            difficult = is_true_word(record.get("ignore")) or is_true_word(record.get("difficult"))
            expected.append(
                ExpectedObject(label, box, difficult, is_true_word(record.get("iscrowd")))
            )
        fault = find_wrong_objects(row, expected)
        if fault is not None:
            return fault
    return None


def _list_names(content: Any) -> dict[str | None, str]:
    """Class names by category id."""
    return {
        _find_id(record.get("id")): str(record["name"]).strip() for record in content["categories"]
    }


def _list_annotations(content: Any, image_id: str) -> list[Any]:
    """The annotations of an image, an exact repetition once."""
    unique = {json.dumps(r, sort_keys=True): r for r in reversed(content["annotations"])}
    repeated_without_id = [r for r in content["annotations"] if _find_id(r.get("id")) is None]
    records = [
        record
        for record in content["annotations"]
        if unique.get(json.dumps(record, sort_keys=True)) is record
        or any(record is other for other in repeated_without_id)
    ]
    return [record for record in records if _find_id(record.get("image_id")) == image_id]


def _find_id(value: Any) -> str | None:
    """An id in the spelling of the manifest; None if the value is none."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip() if isinstance(value, str) else f"{value:d}"
    whole, point, zeros = text.partition(".")
    is_whole = point and whole.removeprefix("-").isdigit() and zeros and not zeros.strip("0")
    text = whole if is_whole else text
    digits = text.removeprefix("-")
    return str(int(text)) if digits.isdigit() and digits.isascii() and len(digits) < 100 else text


def _find_box(record: Any) -> tuple[float, float, float, float] | str | None:
    """The corners of a record's bbox, None if the segmentation gives them, or what is wrong with it."""
    box = record.get("bbox")
    if box in (None, [], "", " ") or (isinstance(box, float) and math.isnan(box)):
        return None if record.get("segmentation") else "no box"
    if not isinstance(box, list) or len(box) != 4:
        return "not four numbers"
    if any(isinstance(side, bool) or not isinstance(side, int | float) for side in box):
        return "not four numbers"
    x, y, width, height = box
    try:
        return float(x), float(y), float(x) + float(width), float(y) + float(height)
    except OverflowError:
        return math.nan, math.nan, math.nan, math.nan


def _count_skipped(answer: SourceAnswer) -> int:
    return answer.skipped


TARGETS = (Target("coco", _write, _read, _find_fault, _count_skipped),)
