"""Open Images: one CSV with the boxes of a split, and one with the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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
from pipeline.sources.openimages_boxes import BoxTable, read_boxes
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.relative_boxes import settle_relative
from pipeline.sources.tally import WITHOUT_ANNOTATION, Repair, Tally

_UNSET = Repair("object", "with IsGroupOf unknown: taken as not set", "")


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
    names, repeated = _read_classes(classes) if classes is not None else (None, [])
    add_repairs(tally, repeated, options)
    table, malformed = read_boxes(box_uri, names)
    add_repairs(tally, malformed, options)
    ancestors = read_ancestors(hierarchy) if hierarchy is not None else {}
    if names is None:
        above = {name for label in table.labels for name in ancestors.get(label, ())}
        names = {label: label for label in sorted(above.union(table.labels))}
    above_by_name = name_ancestors(table.labels, ancestors, names, hierarchy or "")
    listing = list_files(images, hidden=False)
    stems = ImageStems(listing)
    add_repairs(tally, _find_unlisted(stems, tuple(table.images), listing.root), options)
    source = _Images(table, names, above_by_name, stems, listing.root, uris.redact_uri(box_uri))
    rows = stream_rows(
        range(len(table.images)), lambda number: source.read(number, options), tally, options
    )
    return Dataset(tuple(names.values()), None, rows, tally)


@dataclass(frozen=True)
class _Images:
    """The images of the CSV, by their number in it."""

    table: BoxTable
    names: Mapping[str, str]
    """Display names by label name."""
    above_by_name: Mapping[str, Sequence[str]]
    """The classes above each."""
    stems: ImageStems
    root: str
    """The folder of the images."""
    where: str
    """What errors call the CSV."""

    @cached_property
    def _ids(self) -> tuple[str, ...]:
        return tuple(self.table.images)

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return tuple(self.table.labels)

    @cached_property
    def _order(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.table.group_by_image()

    def read(self, number: int, options: SourceOptions) -> ReadImage:
        """Read one image's header, and scale its boxes.

        Raises:
            UnreadableDataset: the image or one of its lines is invalid.
        """
        place = f"{self.where}: image {self._ids[number]}"
        if number in self.table.faults:
            raise UnreadableDataset(self.table.faults[number])
        uri = self._find(number, place)
        order, starts = self._order
        rows = order[starts[number] : starts[number + 1]].tolist()
        unique = dict.fromkeys(map(self._build_object, rows))
        repairs = [_UNSET for row in rows if self.table.groups[row] < 0]
        repairs += [Repair("object", "listed again: left out there", place, is_loss=True)] * (
            len(rows) - len(unique)
        )
        objects = expand_objects(unique, self.above_by_name)
        settled = settle_relative(uri, objects, options, place)
        clipped, clips = clip_objects(settled.objects, settled.width, settled.height, place)
        row = ManifestRow(self._ids[number], uri, settled.width, settled.height, clipped)
        return ReadImage(row, [*repairs, *settled.repairs, *clips])

    def _find(self, number: int, place: str) -> str:
        """The URI of an image."""
        image_id = self._ids[number]
        path = self.stems.find(image_id, place)
        if path is None:
            raise UnreadableDataset(
                f"{place} does not exist in {uris.redact_uri(self.root)} (no file {image_id}.jpg)"
            )
        return uris.join(self.root, path)

    def _build_object(self, row: int) -> AnnotatedObject:
        x1, y1, x2, y2 = self.table.sides[4 * row : 4 * row + 4]
        label = self.names[self._labels[self.table.label_numbers[row]]]
        return AnnotatedObject(label, x1, y1, x2, y2, crowd=self.table.groups[row] > 0)


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


def _find_unlisted(stems: ImageStems, ids: Sequence[str], root: str) -> Iterator[Repair]:
    """Images of the folder without a box in the CSV."""
    for path in stems.iterate_others(ids):
        yield Repair("image", WITHOUT_ANNOTATION, uris.join(uris.redact_uri(root), path))
