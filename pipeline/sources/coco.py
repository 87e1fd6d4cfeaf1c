"""COCO instances: one JSON file for all images of a split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import geometry, storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import (
    LARGEST_SIDE,
    check_inside,
    checked_objects,
    image_size,
    reaches_over,
)
from pipeline.sources.dataset import Counts, Dataset, stream_rows

Record = Mapping[str, Any]


def open_coco(
    annotations: str, images: str, unlabelled: bool = False, skip_invalid: bool = False
) -> Dataset:
    """The images of a COCO instances file, in its order; `image_id` is the id as a string.

    Classes are numbered by ascending category id; the ids go into the manifest beside them. A
    image without annotations holds nothing: its `objects` are empty.

    Args:
        annotations: the JSON file, in any store.
        images: the folder that `file_name` is relative to.
        unlabelled: use images and categories only (the files of COCO's test splits have no
            annotations); `objects` are null.
        skip_invalid: leave out images with an error instead of raising it.

    Raises:
        UnreadableDataset: malformed JSON, a missing field, an id twice, an annotation of an unknown
            image or category, an image that is missing.
        InvalidBox: while streaming, a box that cannot be.
        StorageError: the file or the store cannot be reached.
    """
    uri = storage.absolute(annotations)
    where = storage.shown(uri)
    content = _parsed(storage.read(uri), where)
    categories = _categories(content, where)
    records = _image_records(content, where)
    found = None if unlabelled else _annotations(content, records, categories, where)
    root = storage.absolute(images)
    present = frozenset(storage.files_below(root))

    def read_row(image_id: Any) -> tuple[ManifestRow, int]:
        record, place = records[image_id], f"{where}: image {image_id}"
        name = _field(record, "file_name", place)
        check_inside(str(name), place)
        if name not in present:
            raise UnreadableDataset(f"{place}: {name} does not lie in {storage.shown(root)}")
        uri = storage.join(root, name)
        objects = None if found is None else _objects(found[image_id], categories, place)
        width, height = _side(record, "width"), _side(record, "height")
        if not (width and height) or reaches_over(objects or (), width, height):
            width, height = image_size(uri)
        if objects is None:
            return ManifestRow(str(image_id), uri, width, height, None), 0
        kept, dropped = checked_objects(objects, width, height, place)
        return ManifestRow(str(image_id), uri, width, height, kept), dropped

    counts = Counts()
    rows = stream_rows(records, read_row, counts, skip_invalid)
    return Dataset(tuple(categories.values()), tuple(categories), rows, counts)


def _parsed(data: bytes, where: str) -> Record:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnreadableDataset(
            f"{where} holds a JSON {type(content).__name__}, expected an object with "
            "images, annotations and categories"
        )
    return content


def _records(content: Record, field: str, where: str) -> list[Record]:
    if field not in content:
        hint = "; for a file of images only say unlabelled" if field == "annotations" else ""
        raise UnreadableDataset(f"{where}: field {field} is missing{hint}")
    records = content[field]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UnreadableDataset(f"{where}: field {field} is not a list of objects")
    return records


def _field(record: Record, field: str, where: str) -> Any:
    if record.get(field) in (None, ""):
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    return record[field]


def _id(record: Record, field: str, where: str) -> int | str:
    value = _field(record, field, where)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise UnreadableDataset(f"{where}: field {field} is {value!r}, expected an integer")
    return value


def _categories(content: Record, where: str) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for index, record in enumerate(_records(content, "categories", where)):
        place = f"{where}: category {index}"
        key = _id(record, "id", place)
        if not isinstance(key, int):
            raise UnreadableDataset(f"{place}: field id is {key!r}, expected an integer")
        name = str(_field(record, "name", place)).strip()
        if key in names or name in names.values():
            raise UnreadableDataset(f"{place}: id {key} or name {name!r} occurs twice")
        names[key] = name
    if not names:
        raise UnreadableDataset(f"{where}: field categories is empty")
    return dict(sorted(names.items()))


def _image_records(content: Record, where: str) -> dict[int | str, Record]:
    records: dict[int | str, Record] = {}
    for index, record in enumerate(_records(content, "images", where)):
        key = _id(record, "id", f"{where}: image number {index}")
        if key in records:
            raise UnreadableDataset(f"{where}: image id {key} occurs twice")
        records[key] = record
    if not records:
        raise UnreadableDataset(f"{where}: field images is empty")
    return records


def _annotations(
    content: Record,
    records: Mapping[int | str, Record],
    categories: Mapping[int, str],
    where: str,
) -> dict[int | str, list[Record]]:
    """Annotations by image; every reference in them is known to hold."""
    found: dict[int | str, list[Record]] = defaultdict(list)
    for index, record in enumerate(_records(content, "annotations", where)):
        place = f"{where}: annotation {record.get('id', f'number {index}')}"
        image_id, category_id = _id(record, "image_id", place), _id(record, "category_id", place)
        if image_id not in records:
            raise UnreadableDataset(f"{place} is of image {image_id}, which images does not list")
        if category_id not in categories:
            raise UnreadableDataset(
                f"{place} is of category {category_id}, which categories does not list"
            )
        found[image_id].append(record)
    return {key: found.get(key, []) for key in records}


def _objects(
    records: Sequence[Record], categories: Mapping[int, str], where: str
) -> tuple[AnnotatedObject, ...]:
    measured = [_xywh(record, f"{where}, object {i}") for i, record in enumerate(records)]
    corners = geometry.from_xywh(np.array(measured, np.float64).reshape(-1, 4))
    return tuple(
        AnnotatedObject(
            categories[record["category_id"]], x1, y1, x2, y2, crowd=bool(record.get("iscrowd"))
        )
        for record, (x1, y1, x2, y2) in zip(records, corners.tolist(), strict=True)
    )


def _xywh(record: Record, where: str) -> list[float]:
    box = _field(record, "bbox", f"{where} (annotation {record.get('id', 'without id')})")
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableDataset(
            f"{where}: field bbox is {box!r}, expected four numbers x, y, width, height"
        ) from error
    return [x, y, width, height]


def _side(record: Record, field: str) -> int:
    """A stated width or height; 0 where it is missing or no side."""
    side = record.get(field)
    if isinstance(side, int | float) and 0 < side < LARGEST_SIDE:
        return round(side)
    return 0
