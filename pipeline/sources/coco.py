"""COCO instances: one JSON file for all images of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline import geometry, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import clip_objects, read_side
from pipeline.sources.coco_categories import read_categories
from pipeline.sources.coco_file import CocoFile, Record, find_key, find_shared, read_coco_file
from pipeline.sources.coco_segmentation import compute_hull, has_segmentation
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.image_links import check_link, find_linked, find_named
from pipeline.sources.listing import list_files
from pipeline.sources.names import FileNames
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

IMAGE_FIELDS = ("id", "file_name", "coco_url", "width", "height")
_LARGE = 1e9
"""Pixels: less has no overflow."""
ChangeRow = Callable[[ManifestRow, Record, Mapping[int, str], str], ManifestRow]
"""What a dialect adds to a row: takes the row, the image's record, names by category id, and the place."""


def open_coco(
    annotations: str,
    images: str | None,
    unlabelled: bool = False,
    options: SourceOptions = DEFAULT,
) -> Dataset:
    """The images of a COCO instances file, in its order; `image_id` is the id as a string.

    Classes are numbered by ascending category id, and the manifest stores the ids beside them. An image
    without annotations has empty `objects`. An annotation's `ignore` (or `difficult`) makes its object
    difficult, `iscrowd` a crowd; without `bbox`, its box is the hull of its segmentation.

    Args:
        annotations: the JSON file, in any store.
        images: the folder that `file_name` is relative to; None takes each image's `coco_url` instead.
        unlabelled: use only images and categories (the files of COCO's test splits have no
            annotations); `objects` are null.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the JSON is malformed, a list is missing, a category is invalid, or (while
            streaming) too many images are.
        StorageError: the file or the store cannot be reached.
    """
    return open_instances(annotations, images, unlabelled, options)


def open_instances(
    annotations: str,
    images: str | None,
    unlabelled: bool,
    options: SourceOptions,
    *,
    image_fields: Sequence[str] = IMAGE_FIELDS,
    change_row: ChangeRow | None = None,
) -> Dataset:
    """Open a file in the layout of COCO; arguments and errors as for `open_coco`.

    Args:
        annotations: the JSON file.
        images: the folder of the images.
        unlabelled: leave out the annotations.
        options: how many images may be invalid, and what is checked.
        image_fields: what is kept of an image's record.
        change_row: adds a dialect's own columns.
    """
    content = read_coco_file(uris.make_absolute(annotations), image_fields, unlabelled)
    where, tally = content.where, Tally()
    add_repairs(
        tally, [_describe_repeated("annotation", where)] * content.repeated_annotations, options
    )
    used = None if unlabelled else content.used_categories
    categories, repairs = read_categories(content.categories, used, where)
    add_repairs(tally, repairs, options)
    add_repairs(tally, [_describe_repeated("image", where)] * content.repeated_images, options)
    repeated_ids = _find_repeated_ids(content)
    add_repairs(tally, _find_shared_files(content), options)
    add_repairs(tally, _find_unlisted(content), options)
    find_image = _make_finder(images)

    def read_image(position: int) -> ReadImage:
        index = int(content.image_order[position])
        record = content.images.read(index)
        image_id = read_id(record.get("id"), "id", f"{where}: image number {index}")
        if position in repeated_ids:
            raise UnreadableDataset(
                f"{where}: image id {image_id} occurs twice, for different images"
            )
        place = f"{where}: image {image_id}"
        uri = find_image(record, place)
        objects, repairs = _build_objects(content.list_annotations(position), categories, place)
        stated = (read_side(record.get("width")), read_side(record.get("height")))
        settled = settle_size(uri, stated, objects, options, place)
        repairs += settled.repairs
        clipped, faults = clip_objects(settled.objects, settled.width, settled.height, place)
        row = ManifestRow(
            image_id, uri, settled.width, settled.height, None if unlabelled else clipped
        )
        if change_row is not None:
            row = change_row(row, record, categories, place)
        return ReadImage(row, [*repairs, *faults])

    rows = stream_rows(range(len(content.image_order)), read_image, tally, options)
    return Dataset(tuple(categories.values()), tuple(categories), rows, tally)


def _make_finder(images: str | None) -> Callable[[Record, str], str]:
    """A function that returns the URI of an image from its record."""
    if images is None:
        return _read_link
    listing = list_files(images, hidden=True)
    names = FileNames(listing)

    def find_image(record: Record, place: str) -> str:
        link = record.get("coco_url")
        if is_absent(record.get("file_name")) and isinstance(link, str):  # LVIS writes no name
            name = check_text(link, "coco_url", place)
            stored = find_linked(names, name, place)
        else:
            name = check_text(record.get("file_name"), "file_name", place)
            stored = find_named(names, name, place)
        if stored is None:
            raise UnreadableDataset(
                f"{place}: {uris.redact_uri(name)} does not exist in {uris.redact_uri(listing.root)}"
            )
        return uris.join(listing.root, stored)

    return find_image


def _read_link(record: Record, place: str) -> str:
    link = record.get("coco_url")
    if is_absent(link):
        raise UnreadableDataset(
            f"{place}: field coco_url is missing or empty; pass the folder of the images (--images)"
        )
    return check_link(check_text(link, "coco_url", place), "coco_url", place)


def _describe_repeated(noun: str, where: str) -> Repair:
    return Repair(noun, "listed again: left out there", f"{where} lists it twice", is_loss=True)


def _find_repeated_ids(content: CocoFile) -> frozenset[int]:
    """Positions of the images whose id another image has too: all of them are invalid."""
    return frozenset(find_shared(content.images.keys[content.image_order]))


def _find_shared_files(content: CocoFile) -> list[Repair]:
    """The images whose file is also that of another image: their objects may be in either."""
    names = (content.images.read(int(index)).get("file_name") for index in content.image_order)
    hashes = [hash(name) or 1 if isinstance(name, str) else 0 for name in names]
    outcome = "whose file an image of another id names too: both are kept"
    return [
        Repair("image", outcome, f"{content.where}: image {_read_image_id(content, position)}")
        for position in find_shared(np.array(hashes, np.int64))
    ]


def _read_image_id(content: CocoFile, position: int) -> str:
    return find_key(content.images.read(int(content.image_order[position])).get("id")) or ""


def _find_unlisted(content: CocoFile) -> list[Repair]:
    """The annotations whose image the file does not list."""
    repairs = []
    for index in content.unlisted.tolist():
        record = content.annotations.read(index)
        name = f"{content.where}: annotation {_name_record(record, index)}"
        detail = f"{name} is of image {record.get('image_id')!r:.60}, which images does not list"
        repairs.append(Repair("box", "dropped: its image is not listed", detail, is_loss=True))
    return repairs


def _name_record(record: Record, index: int) -> str:
    return str(record.get("id", f"number {index}"))[:60]


def _build_objects(
    records: Sequence[Record], categories: Mapping[int, str], where: str
) -> tuple[tuple[AnnotatedObject, ...], list[Repair]]:
    """The objects of one image, with boxes as annotated, and what was assumed about them."""
    plain = _build_plain_objects(records, categories)
    if plain is not None:
        return plain, []
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


def _build_plain_objects(
    records: Sequence[Record], categories: Mapping[int, str]
) -> tuple[AnnotatedObject, ...] | None:
    """The objects if all are as COCO writes them, else None: the rest costs five times as much."""
    objects = []
    for record in records:
        category, crowd, box = (
            record.get("category_id"),
            record.get("iscrowd", 0),
            record.get("bbox"),
        )
        if type(category) is not int or category not in categories:
            return None
        if type(crowd) is not int or not 0 <= crowd <= 1:
            return None
        if "ignore" in record or "difficult" in record or type(box) is not list or len(box) != 4:
            return None
        x, y, width, height = box
        if not all(type(value) is float or type(value) is int for value in box):
            return None
        if not -_LARGE < x + y + width + height < _LARGE:  # nor is it NaN
            return None
        label, x, y = categories[category], float(x), float(y)
        objects.append(
            AnnotatedObject(label, x, y, x + width, y + height, difficult=False, crowd=crowd == 1)
        )
    return tuple(objects)


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
