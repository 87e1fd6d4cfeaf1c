"""COCO instances: one JSON file for all images of a split."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline import geometry, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import LARGEST_SIDE, clip_objects
from pipeline.sources.coco_categories import read_categories
from pipeline.sources.coco_segmentation import compute_hull, has_segmentation
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.listing import list_files
from pipeline.sources.names import FileNames, check_inside
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.scalars import (
    check_text,
    is_absent,
    read_flag,
    read_id,
    read_number,
    read_whole,
)
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Repair, Tally

Record = Mapping[str, Any]


@dataclass
class _Image:
    """One image of the file: its record and its annotations, or why it has no valid id."""

    record: Record
    image_id: str
    annotations: list[Record] = field(default_factory=list)
    fault: str | None = None


def open_coco(
    annotations: str, images: str, unlabelled: bool = False, options: SourceOptions = DEFAULT
) -> Dataset:
    """The images of a COCO instances file, in its order; `image_id` is the id as a string.

    Classes are numbered by ascending category id, and the manifest stores the ids beside them. An image
    without annotations has empty `objects`. An annotation's `ignore` (or `difficult`) makes its object
    difficult, `iscrowd` a crowd; without `bbox`, its box is the hull of its segmentation.

    Args:
        annotations: the JSON file, in any store.
        images: the folder that `file_name` is relative to.
        unlabelled: use only images and categories (the files of COCO's test splits have no
            annotations); `objects` are null.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the JSON is malformed, a list is missing, a category is invalid, or (while
            streaming) too many images are.
        StorageError: the file or the store cannot be reached.
    """
    uri = uris.make_absolute(annotations)
    where = uris.redact_uri(uri)
    content = _parse_content(storage.read(uri), where)
    tally = Tally()
    records, repeated = _drop_repeated(_get_records(content, "annotations", where, unlabelled))
    add_repairs(tally, [_describe_repeated("annotation", where)] * repeated, options)
    used = {_find_whole(record.get("category_id")) for record in records}
    categories, repairs = read_categories(
        _get_records(content, "categories", where), None if unlabelled else used, where
    )
    add_repairs(tally, repairs, options)
    listed = _list_images(content, where, tally, options)
    _assign_annotations(records, listed, where, tally, options)
    listing = list_files(images, hidden=True)
    names = FileNames(listing)

    def read_image(image: _Image) -> ReadImage:
        if image.fault is not None:
            raise UnreadableDataset(image.fault)
        place = f"{where}: image {image.image_id}"
        name = check_text(image.record.get("file_name"), "file_name", place)
        stored = names.find(name, place) or names.find(check_inside(name, place), place)
        if stored is None:
            raise UnreadableDataset(
                f"{place}: {name} does not exist in {uris.redact_uri(listing.root)}"
            )
        uri = uris.join(listing.root, stored)
        objects, repairs = _build_objects(image.annotations, categories, place)
        stated = (_get_side(image.record, "width"), _get_side(image.record, "height"))
        settled = settle_size(uri, stated, objects, options, place)
        repairs += settled.repairs
        clipped, faults = clip_objects(settled.objects, settled.width, settled.height, place)
        row = ManifestRow(
            image.image_id, uri, settled.width, settled.height, None if unlabelled else clipped
        )
        return ReadImage(row, [*repairs, *faults])

    rows = stream_rows(listed, read_image, tally, options)
    return Dataset(tuple(categories.values()), tuple(categories), rows, tally)


def _parse_content(data: bytes, where: str) -> Record:
    try:
        content = parse_json(data, allow_surrogates=True)
    except InvalidJson as error:
        raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnreadableDataset(
            f"{where} holds a JSON {type(content).__name__}, expected an object with "
            "images, annotations and categories"
        )
    return content


def _get_records(
    content: Record, name: str, where: str, may_be_absent: bool = False
) -> list[Record]:
    if may_be_absent:
        return []
    if name not in content:
        hint = "; pass --unlabelled for a file without them" if name == "annotations" else ""
        raise UnreadableDataset(f"{where}: field {name} is missing{hint}")
    records = content[name]
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UnreadableDataset(f"{where}: field {name} is not a list of objects")
    return records


def _drop_repeated(records: Sequence[Record]) -> tuple[list[Record], int]:
    """The records without exact repetitions of one with the same id, and how many these were."""
    first: dict[str, Record] = {}
    texts: dict[str, set[str]] = {}
    different = []
    for record in records:
        key = _find_key(record.get("id"))
        if key is not None and key in first:
            seen = texts.setdefault(key, {json.dumps(first[key], sort_keys=True)})
            text = json.dumps(record, sort_keys=True)
            if text in seen:
                continue
            seen.add(text)
        elif key is not None:
            first[key] = record
        different.append(record)
    return different, len(records) - len(different)


def _describe_repeated(noun: str, where: str) -> Repair:
    return Repair(noun, "listed again: left out there", f"{where} lists it twice", is_loss=True)


def _find_key(value: Any) -> str | None:
    """An id in the spelling in which ids are compared, or None if it is none."""
    try:
        return read_id(value, "id", "")
    except UnreadableDataset:
        return None


def _find_whole(value: Any) -> int | None:
    try:
        return read_whole(value, "category_id", "")
    except UnreadableDataset:
        return None


def _list_images(content: Record, where: str, tally: Tally, options: SourceOptions) -> list[_Image]:
    """The images with valid ids first seen in this order; two different ones of one id are both invalid."""
    records, repeated = _drop_repeated(_get_records(content, "images", where))
    add_repairs(tally, [_describe_repeated("image", where)] * repeated, options)
    if not records:
        raise UnreadableDataset(f"{where}: field images is empty")
    images: list[_Image] = []
    by_id: dict[str, _Image] = {}
    for index, record in enumerate(records):
        try:
            image_id = read_id(record.get("id"), "id", f"{where}: image number {index}")
        except UnreadableDataset as error:
            images.append(_Image(record, "", fault=str(error)))
            continue
        image = _Image(record, image_id)
        images.append(image)
        if image_id in by_id:
            fault = f"{where}: image id {image_id} occurs twice, for different images"
            image.fault = by_id[image_id].fault = fault
        by_id[image_id] = image
    add_repairs(tally, _find_shared_files(images, where), options)
    return images


def _find_shared_files(images: Sequence[_Image], where: str) -> list[Repair]:
    """The images whose file is also that of another image: their objects may be in either."""
    names = [image.record.get("file_name") for image in images]
    counts = Counter(name for name in names if isinstance(name, str))
    outcome = "whose file an image of another id names too: both are kept"
    return [
        Repair("image", outcome, f"{where}: image {image.image_id}")
        for image, name in zip(images, names, strict=True)
        if isinstance(name, str) and counts[name] > 1
    ]


def _assign_annotations(
    records: Sequence[Record],
    images: Sequence[_Image],
    where: str,
    tally: Tally,
    options: SourceOptions,
) -> None:
    """Give each annotation to its image; count those whose image the file does not list."""
    by_id = {image.image_id: image for image in images if image.image_id}
    lost = []
    for index, record in enumerate(records):
        key = _find_key(record.get("image_id"))
        if key is not None and key in by_id:
            by_id[key].annotations.append(record)
            continue
        name = f"{where}: annotation {_name_record(record, index)}"
        detail = f"{name} is of image {record.get('image_id')!r:.60}, which images does not list"
        lost.append(Repair("box", "dropped: its image is not listed", detail, is_loss=True))
    add_repairs(tally, lost, options)


def _name_record(record: Record, index: int) -> str:
    return str(record.get("id", f"number {index}"))[:60]


def _build_objects(
    records: Sequence[Record], categories: Mapping[int, str], where: str
) -> tuple[tuple[AnnotatedObject, ...], list[Repair]]:
    """The objects of one image, with boxes as annotated, and what was assumed about them."""
    xywh: list[Sequence[float]] = []
    kinds: list[tuple[str, bool, bool]] = []
    repairs: list[Repair] = []
    for index, record in enumerate(records):
        place = f"{where}, object {index} (annotation {_name_record(record, index)})"
        category = read_whole(record.get("category_id"), "category_id", place)
        if category not in categories:
            raise UnreadableDataset(
                f"{place} is of category {category}, which categories does not list"
            )
        crowd = read_flag(record.get("iscrowd"), "iscrowd", place)
        difficult = _read_difficult(record, place)
        repairs += [
            Repair("object", f"with {name} unspecified: taken as not set", place)
            for name, flag in (("iscrowd", crowd), ("ignore", difficult))
            if flag is None
        ]
        if is_absent(record.get("bbox")) or record["bbox"] == []:
            repairs.append(Repair("box", "taken from the hull of its segmentation", place))
        xywh.append(_read_xywh(record, place))
        kinds.append((categories[category], bool(difficult), bool(crowd)))
    boxes = geometry.from_xywh(np.array(xywh, np.float64).reshape(-1, 4)).tolist()
    objects = tuple(
        AnnotatedObject(label, x1, y1, x2, y2, difficult, crowd)
        for (label, difficult, crowd), (x1, y1, x2, y2) in zip(kinds, boxes, strict=True)
    )
    return objects, repairs


def _read_difficult(record: Record, where: str) -> bool | None:
    """Whether an object does not count, from `ignore` or `difficult`, which must agree if both are there."""
    flags = {
        name: read_flag(record[name], name, where)
        for name in ("ignore", "difficult")
        if not is_absent(record.get(name))
    }
    if True in flags.values() and False in flags.values():
        raise UnreadableDataset(
            f"{where}: ignore is {record['ignore']!r}, but difficult is {record['difficult']!r}"
        )
    if True in flags.values():
        return True
    return None if None in flags.values() else False


def _read_xywh(record: Record, where: str) -> Sequence[float]:
    box = record.get("bbox")
    if box is None or is_absent(box) or box == []:
        if has_segmentation(record.get("segmentation")):
            return compute_hull(record["segmentation"], where)
        raise UnreadableDataset(f"{where}: field bbox is missing or empty")
    is_valid = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in box)
    )
    if not is_valid:
        raise UnreadableDataset(
            f"{where}: field bbox is {box!r:.60}, expected four numbers x, y, width, height"
        )
    return [read_number(value, "bbox", where) for value in box]


def _get_side(record: Record, name: str) -> int:
    """An annotated width or height; 0 if it is missing or invalid."""
    try:
        side = read_number(record.get(name), name, "")
    except UnreadableDataset:
        return 0
    return round(side) if 0 < side < LARGEST_SIDE else 0
