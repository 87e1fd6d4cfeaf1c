"""Open Images: one CSV with the boxes of a split, and one with the names of the classes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import clip_objects
from pipeline.sources.csv_rows import read_csv_rows
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.image_stems import ImageStems
from pipeline.sources.label_hierarchy import expand_objects, name_ancestors, read_ancestors
from pipeline.sources.listing import list_files
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.relative_boxes import settle_relative
from pipeline.sources.scalars import read_number
from pipeline.sources.tally import WITHOUT_ANNOTATION, Repair, Tally

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_REQUIRED = ("ImageID", "LabelName", *_SIDES)
_FLAGS = {"0": 0, "1": 1, "-1": -1, "": 0}
"""Open Images' flags: no, yes, not known; a file without the column has none."""
_UNSET = Repair("object", "with IsGroupOf unknown: taken as not set", "")


@dataclass
class _BoxTable:
    """All boxes of the CSV, 25 bytes each, and the images in the order of their first box."""

    images: dict[str, int] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    """Why an image is invalid, by its number."""
    labels: dict[str, int] = field(default_factory=dict)
    image_numbers: array[int] = field(default_factory=lambda: array("i"))
    label_numbers: array[int] = field(default_factory=lambda: array("i"))
    sides: array[float] = field(default_factory=lambda: array("f"))
    groups: array[int] = field(default_factory=lambda: array("b"))


def open_openimages(
    images: str,
    boxes: str,
    classes: str | None = None,
    options: SourceOptions = DEFAULT,
    hierarchy: str | None = None,
) -> Dataset:
    """The images that a CSV of boxes names, in the order of their first box; `image_id` is the ImageID.

    A box of a group (IsGroupOf) is a crowd. Classes have their display names, in the order of the file of
    classes. With a hierarchy, an object also counts as one of each class above its own, which takes an object
    for each, as Open Images' evaluation expects. Each image's header is read, because boxes are shares
    of its sides. Rows need not be sorted by image. Memory holds 25 bytes per box and about 200 per image.

    Args:
        images: the folder of the images, `<ImageID>.jpg` at any depth, in any store.
        boxes: the CSV with the columns ImageID, LabelName, XMin, XMax, YMin, YMax and IsGroupOf; others
            are not read.
        classes: the CSV of class descriptions: label name and display name, with or without a header. None
            takes the label names, sorted.
        options: how many images may be invalid, and what is checked.
        hierarchy: the JSON file of the hierarchy, such as bbox_labels_600_hierarchy.json.

    Raises:
        UnreadableDataset: a file is not CSV, lacks a column or is empty, or (while streaming) too many images
            are invalid.
        StorageError: a file or the store cannot be reached.
    """
    tally = Tally()
    box_uri = uris.make_absolute(boxes)
    where = uris.redact_uri(box_uri)
    names, repeated = _read_classes(classes) if classes is not None else (None, [])
    add_repairs(tally, repeated, options)
    table, malformed = _read_boxes(box_uri, names)
    add_repairs(tally, malformed, options)
    ancestors = read_ancestors(hierarchy) if hierarchy is not None else {}
    if names is None:
        above = {name for label in table.labels for name in ancestors.get(label, ())}
        names = {label: label for label in sorted(above.union(table.labels))}
    above_by_name = name_ancestors(table.labels, ancestors, names, hierarchy or "")
    listing = list_files(images, hidden=False)
    stems = ImageStems(listing)
    ids = list(table.images)
    add_repairs(tally, _find_unlisted(stems, ids, uris.redact_uri(listing.root)), options)
    order, starts = _group(table)
    label_names = list(table.labels)

    def read_image(number: int) -> ReadImage:
        place = f"{where}: image {ids[number]}"
        if number in table.faults:
            raise UnreadableDataset(table.faults[number])
        path = stems.find(ids[number], place)
        if path is None:
            raise UnreadableDataset(
                f"{place} does not exist in {uris.redact_uri(listing.root)} (no file {ids[number]}.jpg)"
            )
        uri = uris.join(listing.root, path)
        rows = order[starts[number] : starts[number + 1]].tolist()
        unique = dict.fromkeys(_build_object(table, row, label_names, names) for row in rows)
        objects = expand_objects(unique, above_by_name)
        repairs = [_UNSET for row in rows if table.groups[row] < 0]
        repairs += [Repair("object", "listed again: left out there", place, is_loss=True)] * (
            len(rows) - len(unique)
        )
        settled = settle_relative(uri, objects, options, place)
        clipped, clips = clip_objects(settled.objects, settled.width, settled.height, place)
        row = ManifestRow(ids[number], uri, settled.width, settled.height, clipped)
        return ReadImage(row, [*repairs, *settled.repairs, *clips])

    rows = stream_rows(range(len(ids)), read_image, tally, options)
    return Dataset(tuple(names.values()), None, rows, tally)


def _read_classes(classes: str) -> tuple[dict[str, str], list[Repair]]:
    """Display names by label name; two labels of one display name both have their label name behind it."""
    uri = uris.make_absolute(classes)
    where = uris.redact_uri(uri)
    names: dict[str, str] = {}
    repeated = []
    for number, cells in read_csv_rows(uri):
        label, name = (cell.strip() for cell in cells) if len(cells) == 2 else ("", "")
        if not label or not name:
            raise UnreadableDataset(
                f"{where}, line {number} has the cells {cells!r:.100}, expected a label name and a "
                "display name"
            )
        if not names and (label, name) == ("LabelName", "DisplayName"):
            continue
        if names.get(label, name) != name:
            raise UnreadableDataset(
                f"{where}, line {number}: label {label} occurs twice, for {names[label]!r} and {name!r}"
            )
        if label in names:
            place = f"{where}, line {number}"
            repeated.append(Repair("category", "listed again: left out there", place, is_loss=True))
        names[label] = name
    if not names:
        raise UnreadableDataset(f"{where} lists no classes")
    counts: dict[str, int] = {}
    for name in names.values():
        counts[name] = counts.get(name, 0) + 1
    distinct = {
        label: name if counts[name] == 1 else f"{name} ({label})" for label, name in names.items()
    }
    return distinct, repeated


def _read_boxes(uri: str, names: Mapping[str, str] | None) -> tuple[_BoxTable, list[Repair]]:
    """The boxes of the CSV; a row that no image can be read from is left out."""
    where = uris.redact_uri(uri)
    rows = read_csv_rows(uri)
    number, header = next(rows, (0, []))
    columns = {name.strip(): index for index, name in enumerate(header)}
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        shown = f"its first line has {', '.join(header):.200}" if header else "the file is empty"
        raise UnreadableDataset(f"{where} has no column {', '.join(missing)}: {shown}")
    table, malformed = _BoxTable(), list[Repair]()
    image_at, group_at = columns["ImageID"], columns.get("IsGroupOf")
    for number, cells in rows:
        image_id = cells[image_at].strip() if image_at < len(cells) else ""
        if not image_id:
            detail = f"{where}, line {number} has no ImageID"
            malformed.append(Repair("line", "malformed: left out", detail, is_loss=True))
            continue
        image = table.images.setdefault(image_id, len(table.images))
        place = f"{where}, line {number} (image {image_id})"
        try:
            if len(cells) != len(header):
                raise UnreadableDataset(
                    f"{place} has {len(cells)} columns, and the first line {len(header)}"
                )
            label = cells[columns["LabelName"]].strip()
            if names is not None and label not in names:
                raise UnreadableDataset(
                    f"{place}: LabelName {label!r:.60} is not among the {len(names)} classes"
                )
            sides = [_read_side(cells[columns[name]], name, place) for name in _SIDES]
            group = _read_group(cells[group_at], place) if group_at is not None else 0
        except UnreadableDataset as error:
            table.faults.setdefault(image, str(error))
            continue
        table.image_numbers.append(image)
        table.label_numbers.append(table.labels.setdefault(label, len(table.labels)))
        table.sides.extend(sides)
        table.groups.append(group)
    if not table.images:
        raise UnreadableDataset(f"{where} holds no boxes")
    return table, malformed


def _read_side(text: str, name: str, place: str) -> float:
    # nearly all texts are plain decimals, which need no pattern
    return (
        float(text)
        if text.isascii() and text.replace(".", "", 1).isdecimal()
        else read_number(text, name, place)
    )


def _read_group(text: str, place: str) -> int:
    if text.strip() not in _FLAGS:
        raise UnreadableDataset(f"{place}: IsGroupOf is {text!r:.60}, expected 0, 1 or -1")
    return _FLAGS[text.strip()]


def _group(table: _BoxTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows by image, in the file's order within one, and where each image's begin."""
    numbers = np.array(table.image_numbers, np.int32)
    counts = np.bincount(numbers, minlength=len(table.images))
    return np.argsort(numbers, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _build_object(
    table: _BoxTable, row: int, labels: Sequence[str], names: Mapping[str, str]
) -> AnnotatedObject:
    x1, y1, x2, y2 = table.sides[4 * row : 4 * row + 4]
    label = names[labels[table.label_numbers[row]]]
    return AnnotatedObject(label, x1, y1, x2, y2, crowd=table.groups[row] > 0)


def _find_unlisted(stems: ImageStems, ids: Sequence[str], root: str) -> Iterator[Repair]:
    """Images of the folder without a box in the CSV."""
    for path in stems.iterate_others(ids):
        yield Repair("image", WITHOUT_ANNOTATION, uris.join(root, path))
