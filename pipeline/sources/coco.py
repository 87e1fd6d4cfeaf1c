"""COCO instances: one JSON file for all images of a split."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import geometry, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import (
    LARGEST_SIDE,
    check_inside,
    clip_objects,
    extends_beyond,
    read_image_size,
)
from pipeline.sources.dataset import Counts, Dataset, stream_rows

Record = Mapping[str, Any]


def open_coco(
    annotations: str, images: str, unlabelled: bool = False, skip_invalid: bool = False
) -> Dataset:
    """The images of a COCO instances file, in its order; `image_id` is the id as a string.

    Classes are numbered by ascending category id, and the manifest stores the ids beside them. An image
    without annotations has empty `objects`.

    Args:
        annotations: the JSON file, in any store.
        images: the folder that `file_name` is relative to.
        unlabelled: use only images and categories (the files of COCO's test splits have no
            annotations); `objects` are null.
        skip_invalid: skip images with an error instead of raising it.

    Raises:
        UnreadableDataset: the JSON is malformed, a field is missing, an id occurs twice, an annotation
            names an unknown image or category, or (while streaming) an image is missing.
        InvalidBox: while streaming, a box is invalid.
        StorageError: the file or the store cannot be reached.
    """
    uri = uris.make_absolute(annotations)
    where = uris.redact_uri(uri)
    content = _parse_json(storage.read(uri), where)
    categories = _read_categories(content, where)
    records = _index_images(content, where)
    annotations_by_image = (
        None if unlabelled else _group_annotations(content, records, categories, where)
    )
    root = uris.make_absolute(images)
    present = frozenset(storage.list_below(root))

    def read_row(image_id: Any) -> tuple[ManifestRow, int]:
        record, place = records[image_id], f"{where}: image {image_id}"
        name = _get_field(record, "file_name", place)
        check_inside(str(name), place)
        if name not in present:
            raise UnreadableDataset(f"{place}: {name} does not exist in {uris.redact_uri(root)}")
        uri = uris.join(root, name)
        objects = None
        if annotations_by_image is not None:
            objects = _build_objects(annotations_by_image[image_id], categories, place)
        width, height = _get_side(record, "width"), _get_side(record, "height")
        if not (width and height) or extends_beyond(objects or (), width, height):
            width, height = read_image_size(uri)
        if objects is None:
            return ManifestRow(str(image_id), uri, width, height, None), 0
        clipped, dropped = clip_objects(objects, width, height, place)
        return ManifestRow(str(image_id), uri, width, height, clipped), dropped

    counts = Counts()
    rows = stream_rows(records, read_row, counts, skip_invalid)
    return Dataset(tuple(categories.values()), tuple(categories), rows, counts)


def _parse_json(data: bytes, where: str) -> Record:
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


def _get_records(content: Record, field: str, where: str) -> list[Record]:
    if field not in content:
        hint = "; pass --unlabelled for a file without them" if field == "annotations" else ""
        raise UnreadableDataset(f"{where}: field {field} is missing{hint}")
    records = content[field]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UnreadableDataset(f"{where}: field {field} is not a list of objects")
    return records


def _get_field(record: Record, field: str, where: str) -> Any:
    if record.get(field) in (None, ""):
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    return record[field]


def _get_id(record: Record, field: str, where: str) -> int | str:
    value = _get_field(record, field, where)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise UnreadableDataset(f"{where}: field {field} is {value!r}, expected an integer")
    return value


def _read_categories(content: Record, where: str) -> dict[int, str]:
    """Names by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for index, record in enumerate(_get_records(content, "categories", where)):
        place = f"{where}: category {index}"
        key = _get_id(record, "id", place)
        if not isinstance(key, int):
            raise UnreadableDataset(f"{place}: field id is {key!r}, expected an integer")
        name = str(_get_field(record, "name", place)).strip()
        if key in names or name in names.values():
            raise UnreadableDataset(f"{place}: id {key} or name {name!r} occurs twice")
        names[key] = name
    if not names:
        raise UnreadableDataset(f"{where}: field categories is empty")
    return dict(sorted(names.items()))


def _index_images(content: Record, where: str) -> dict[int | str, Record]:
    records: dict[int | str, Record] = {}
    for index, record in enumerate(_get_records(content, "images", where)):
        key = _get_id(record, "id", f"{where}: image number {index}")
        if key in records:
            raise UnreadableDataset(f"{where}: image id {key} occurs twice")
        records[key] = record
    if not records:
        raise UnreadableDataset(f"{where}: field images is empty")
    return records


def _group_annotations(
    content: Record,
    records: Mapping[int | str, Record],
    categories: Mapping[int, str],
    where: str,
) -> dict[int | str, list[Record]]:
    """Group annotations by image, after checking that the images and categories they name exist."""
    by_image: dict[int | str, list[Record]] = defaultdict(list)
    for index, record in enumerate(_get_records(content, "annotations", where)):
        place = f"{where}: annotation {record.get('id', f'number {index}')}"
        image_id, category_id = (
            _get_id(record, "image_id", place),
            _get_id(record, "category_id", place),
        )
        if image_id not in records:
            raise UnreadableDataset(f"{place} is of image {image_id}, which images does not list")
        if category_id not in categories:
            raise UnreadableDataset(
                f"{place} is of category {category_id}, which categories does not list"
            )
        by_image[image_id].append(record)
    return {key: by_image.get(key, []) for key in records}


def _build_objects(
    records: Sequence[Record], categories: Mapping[int, str], where: str
) -> tuple[AnnotatedObject, ...]:
    xywh = [_get_xywh(record, f"{where}, object {i}") for i, record in enumerate(records)]
    corners = geometry.from_xywh(np.array(xywh, np.float64).reshape(-1, 4))
    return tuple(
        AnnotatedObject(
            categories[record["category_id"]], x1, y1, x2, y2, crowd=bool(record.get("iscrowd"))
        )
        for record, (x1, y1, x2, y2) in zip(records, corners.tolist(), strict=True)
    )


def _get_xywh(record: Record, where: str) -> list[float]:
    box = _get_field(record, "bbox", f"{where} (annotation {record.get('id', 'without id')})")
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableDataset(
            f"{where}: field bbox is {box!r}, expected four numbers x, y, width, height"
        ) from error
    return [x, y, width, height]


def _get_side(record: Record, field: str) -> int:
    """An annotated width or height; 0 if it is missing or invalid."""
    side = record.get(field)
    if isinstance(side, int | float) and 0 < side < LARGEST_SIDE:
        return round(side)
    return 0
