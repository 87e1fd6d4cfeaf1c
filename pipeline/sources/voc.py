"""PASCAL VOC: one XML file per image, and lists of ids for the splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline import storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_inside, checked_objects, image_size, reaches_over
from pipeline.sources.dataset import Counts, Dataset, map_in_order, stream_rows
from pipeline.sources.voc_xml import VocAnnotation, parse_annotation

STANDARD_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 classes of VOC2007 to VOC2012, in the order that the challenge numbers them."""

_YEARS = range(2005, 2013)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_NAMED_LISTS = 12


@dataclass(frozen=True)
class _Layout:
    """Where a VOC dataset keeps what, and which files are there."""

    folder: str
    images: frozenset[str]
    """Paths relative to JPEGImages."""
    annotations: frozenset[str]
    """Paths relative to Annotations."""

    def annotation(self, image_id: str) -> str:
        return storage.join(self.folder, "Annotations", f"{image_id}.xml")

    def image(self, name: str) -> str:
        return storage.join(self.folder, "JPEGImages", name)


def open_voc(
    root: str,
    split: str,
    year: int | None = None,
    *,
    classes: Sequence[str] = (),
    unlabelled: bool = False,
    skip_invalid: bool = False,
) -> Dataset:
    """One split of a VOC dataset, in the order of its list; `image_id` is the file's stem.

    The classes are those given; else the 20 standard ones where `year` is given and no annotation
    has another; else all labels of all annotations, sorted. So every split numbers labels alike.

    Args:
        root: a devkit that holds VOC<year>, or a folder that itself holds JPEGImages, Annotations
            and ImageSets; any store.
        split: a list in ImageSets/Main.
        year: of the devkit; None where `root` itself holds the data.
        classes: the labels in the order to number them.
        unlabelled: read no annotations (VOC's later test splits have none).
        skip_invalid: leave out images with an error instead of raising it.

    Raises:
        UnreadableDataset: folders, list, annotation or image missing or wrong.
        InvalidBox: while streaming, a box that cannot be.
        StorageError: the store cannot be reached.
    """
    layout = _layout(storage.absolute(root), year, unlabelled)
    ids = _read_list(layout.folder, split)
    if not classes and not unlabelled:
        classes = _all_classes(layout, year is not None, skip_invalid)
    reader = (
        _unlabelled_reader(layout) if unlabelled else _labelled_reader(layout, frozenset(classes))
    )
    counts = Counts()
    rows = stream_rows(ids, reader, counts, skip_invalid)
    return Dataset(tuple(classes) if classes or not unlabelled else None, None, rows, counts)


def _layout(root: str, year: int | None, unlabelled: bool) -> _Layout:
    folder = root if year is None else storage.join(root, f"VOC{year}")
    needed = ["JPEGImages", "ImageSets"] + ([] if unlabelled else ["Annotations"])
    missing = [name for name in needed if not storage.is_folder(storage.join(folder, name))]
    if missing:
        years = [str(y) for y in _YEARS if storage.is_folder(storage.join(root, f"VOC{y}"))]
        hint = (
            f"; {storage.shown(root)} is a devkit, year is one of {', '.join(years)}"
            if years
            else ""
        )
        if year is not None and storage.is_folder(storage.join(root, "JPEGImages")):
            hint = f"; {storage.shown(root)} holds JPEGImages itself: leave the year out"
        raise UnreadableDataset(
            f"{storage.shown(folder)} is no VOC dataset, it has no folder {', '.join(missing)}{hint}"
        )
    annotations = [] if unlabelled else storage.files_below(storage.join(folder, "Annotations"))
    images = storage.files_below(storage.join(folder, "JPEGImages"))
    return _Layout(folder, frozenset(images), frozenset(annotations))


def _read_list(folder: str, split: str) -> list[str]:
    lists = storage.join(folder, "ImageSets", "Main")
    found = [name.removesuffix(".txt") for name in storage.names(lists) if name.endswith(".txt")]
    if split not in found:
        found.sort(key=lambda name: ("_" in name, name))  # the class-wise lists last
        more = f" and {len(found) - _NAMED_LISTS} more" if len(found) > _NAMED_LISTS else ""
        raise UnreadableDataset(
            f"VOC list ImageSets/Main/{split}.txt does not exist in {storage.shown(folder)}; "
            f"lists here: {', '.join(found[:_NAMED_LISTS]) or 'none'}{more}"
        )
    uri = storage.join(lists, f"{split}.txt")
    where = storage.shown(uri)
    try:
        lines = [line.split() for line in storage.read(uri).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UnreadableDataset(f"{where} is not a text file: {error}") from error
    lines = [line for line in lines if line]
    if not lines:
        raise UnreadableDataset(f"{where} lists no images")
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if len(line) > 1:
            raise UnreadableDataset(
                f"{where} has {len(line)} columns in line {number} ({' '.join(line)!r}): it looks like "
                "the list of one class; name the split that holds all classes, such as train"
            )
        check_inside(line[0], f"{where}, line {number},")
        if line[0] in seen:
            raise UnreadableDataset(f"{where} lists {line[0]} twice (line {number})")
        seen.add(line[0])
    return [line[0] for line in lines]


def _all_classes(layout: _Layout, standard: bool, skip_invalid: bool) -> tuple[str, ...]:
    def read(name: str) -> VocAnnotation:
        uri = storage.join(layout.folder, "Annotations", name)
        return parse_annotation(storage.read(uri), storage.shown(uri))

    names = sorted(
        name
        for name in layout.annotations
        if name.endswith(".xml") and not PurePosixPath(name).name.startswith(".")
    )
    labels: set[str] = set()
    for outcome in map_in_order(read, names):
        try:
            labels.update(item.label for item in outcome.result().objects)
        except (UnreadableDataset, storage.MissingObject):
            if not skip_invalid:
                raise
    if standard and labels <= set(STANDARD_CLASSES):
        return STANDARD_CLASSES
    return tuple(sorted(labels))


def _labelled_reader(
    layout: _Layout, classes: frozenset[str]
) -> Callable[[str], tuple[ManifestRow, int]]:
    def read_row(image_id: str) -> tuple[ManifestRow, int]:
        uri = layout.annotation(image_id)
        where = storage.shown(uri)
        if f"{image_id}.xml" not in layout.annotations:
            nothing = _image_name(layout, image_id, None) is None
            other = "nor an image" if nothing else "though there is an image"
            raise UnreadableDataset(f"image {image_id} has no annotation, {other}: {where}")
        annotation = parse_annotation(storage.read(uri), where)
        if annotation.filename is not None:
            check_inside(annotation.filename, f"{where}: field filename")
        name = _image_name(layout, image_id, annotation.filename)
        if name is None:
            raise UnreadableDataset(
                f"{where} has no image: neither {image_id}.jpg, .jpeg or .png nor "
                f"{annotation.filename} lies in JPEGImages"
            )
        image = layout.image(name)
        width, height = annotation.width, annotation.height
        if width <= 0 or height <= 0 or reaches_over(annotation.objects, width, height):
            width, height = image_size(image)
        objects, dropped = checked_objects(annotation.objects, width, height, where, classes)
        return ManifestRow(image_id, image, width, height, objects), dropped

    return read_row


def _unlabelled_reader(layout: _Layout) -> Callable[[str], tuple[ManifestRow, int]]:
    def read_row(image_id: str) -> tuple[ManifestRow, int]:
        name = _image_name(layout, image_id, None)
        if name is None:
            raise UnreadableDataset(
                f"image {image_id} does not lie in {storage.shown(layout.image(''))}"
            )
        width, height = image_size(layout.image(name))
        return ManifestRow(image_id, layout.image(name), width, height, None), 0

    return read_row


def _image_name(layout: _Layout, image_id: str, filename: str | None) -> str | None:
    """The image's path: the id decides; the annotation's file name gives the ending, or replaces it."""
    stated = PurePosixPath(filename).suffix if filename else ""
    candidates = [image_id + suffix for suffix in (stated, *_SUFFIXES) if suffix]
    candidates += [filename] if filename else []
    return next((name for name in candidates if name in layout.images), None)
