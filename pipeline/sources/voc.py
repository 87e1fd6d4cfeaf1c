"""PASCAL VOC: one XML file per image, and lists of ids for the splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline import storage, uris
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_inside, clip_objects, extends_beyond, read_image_size
from pipeline.sources.dataset import Counts, Dataset, map_in_order, stream_rows
from pipeline.sources.voc_xml import VocAnnotation, parse_annotation

STANDARD_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 classes of VOC2007 to VOC2012, in the order of the challenge."""

_YEARS = range(2005, 2013)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_LISTS_SHOWN = 12


@dataclass(frozen=True)
class _Layout:
    """The folder of a VOC dataset and the files that exist in it."""

    folder: str
    images: frozenset[str]
    """Paths relative to JPEGImages."""
    annotations: frozenset[str]
    """Paths relative to Annotations."""

    def join_annotation(self, image_id: str) -> str:
        return uris.join(self.folder, "Annotations", f"{image_id}.xml")

    def join_image(self, name: str) -> str:
        return uris.join(self.folder, "JPEGImages", name)


def open_voc(
    root: str,
    split: str,
    year: int | None = None,
    *,
    classes: Sequence[str] = (),
    unlabelled: bool = False,
    skip_invalid: bool = False,
) -> Dataset:
    """Open one split of a VOC dataset, in the order of its list; `image_id` is the file's stem.

    The classes are `classes` if set. Otherwise they are the 20 standard classes if `year` is set and no
    annotation has another label, or else all labels of all annotations, sorted. So all splits number labels
    alike.

    Args:
        root: a devkit that holds VOC<year>, or a folder that itself holds JPEGImages, Annotations
            and ImageSets, in any store.
        split: a list in ImageSets/Main.
        year: the year of the devkit; None if `root` itself holds the data.
        classes: the labels in the order of their numbers.
        unlabelled: read no annotations (VOC's later test splits have none).
        skip_invalid: skip images with an error instead of raising it.

    Raises:
        UnreadableDataset: a folder, list, annotation or image is missing or invalid.
        InvalidBox: while streaming, a box is invalid.
        StorageError: the store cannot be reached.
    """
    layout = _open_layout(uris.make_absolute(root), year, unlabelled)
    ids = _read_list(layout.folder, split)
    if not classes and not unlabelled:
        classes = _collect_classes(layout, year is not None, skip_invalid)
    reader = (
        _make_unlabelled_reader(layout)
        if unlabelled
        else _make_labelled_reader(layout, frozenset(classes))
    )
    counts = Counts()
    rows = stream_rows(ids, reader, counts, skip_invalid)
    return Dataset(tuple(classes) if classes or not unlabelled else None, None, rows, counts)


def _open_layout(root: str, year: int | None, unlabelled: bool) -> _Layout:
    folder = root if year is None else uris.join(root, f"VOC{year}")
    folders = ["JPEGImages", "ImageSets"] + ([] if unlabelled else ["Annotations"])
    missing = [name for name in folders if not storage.is_folder(uris.join(folder, name))]
    if missing:
        years = [str(y) for y in _YEARS if storage.is_folder(uris.join(root, f"VOC{y}"))]
        hint = (
            f"; {uris.redact_uri(root)} is a devkit: set the year to one of {', '.join(years)}"
            if years
            else ""
        )
        if year is not None and storage.is_folder(uris.join(root, "JPEGImages")):
            hint = f"; {uris.redact_uri(root)} holds JPEGImages itself: omit the year"
        raise UnreadableDataset(
            f"{uris.redact_uri(folder)} is not a VOC dataset: it has no folder {', '.join(missing)}{hint}"
        )
    annotations = [] if unlabelled else storage.list_below(uris.join(folder, "Annotations"))
    images = storage.list_below(uris.join(folder, "JPEGImages"))
    return _Layout(folder, frozenset(images), frozenset(annotations))


def _read_list(folder: str, split: str) -> list[str]:
    lists = uris.join(folder, "ImageSets", "Main")
    names = [
        name.removesuffix(".txt") for name in storage.list_names(lists) if name.endswith(".txt")
    ]
    if split not in names:
        names.sort(key=lambda name: ("_" in name, name))  # the lists of single classes last
        more = f" and {len(names) - _LISTS_SHOWN} more" if len(names) > _LISTS_SHOWN else ""
        raise UnreadableDataset(
            f"VOC list ImageSets/Main/{split}.txt does not exist in {uris.redact_uri(folder)}; "
            f"lists here: {', '.join(names[:_LISTS_SHOWN]) or 'none'}{more}"
        )
    uri = uris.join(lists, f"{split}.txt")
    where = uris.redact_uri(uri)
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
                "the list of one class; choose a split of all classes, such as train"
            )
        check_inside(line[0], f"{where}, line {number},")
        if line[0] in seen:
            raise UnreadableDataset(f"{where} lists {line[0]} twice (line {number})")
        seen.add(line[0])
    return [line[0] for line in lines]


def _collect_classes(layout: _Layout, prefer_standard: bool, skip_invalid: bool) -> tuple[str, ...]:
    def read(name: str) -> VocAnnotation:
        uri = uris.join(layout.folder, "Annotations", name)
        return parse_annotation(storage.read(uri), uris.redact_uri(uri))

    names = sorted(
        name
        for name in layout.annotations
        if name.endswith(".xml") and not PurePosixPath(name).name.startswith(".")
    )
    labels: set[str] = set()
    for outcome in map_in_order(read, names):
        try:
            labels.update(item.label for item in outcome.result().objects)
        except (UnreadableDataset, MissingObject):
            if not skip_invalid:
                raise
    if prefer_standard and labels <= set(STANDARD_CLASSES):
        return STANDARD_CLASSES
    return tuple(sorted(labels))


def _make_labelled_reader(
    layout: _Layout, classes: frozenset[str]
) -> Callable[[str], tuple[ManifestRow, int]]:
    def read_row(image_id: str) -> tuple[ManifestRow, int]:
        uri = layout.join_annotation(image_id)
        where = uris.redact_uri(uri)
        if f"{image_id}.xml" not in layout.annotations:
            has_image = _find_image(layout, image_id, None) is not None
            missing = "an annotation" if has_image else "an annotation and an image"
            raise UnreadableDataset(f"{image_id} lacks {missing}: {where} does not exist")
        annotation = parse_annotation(storage.read(uri), where)
        if annotation.filename is not None:
            check_inside(annotation.filename, f"{where}: field filename")
        name = _find_image(layout, image_id, annotation.filename)
        if name is None:
            raise UnreadableDataset(
                f"{where} has no image: JPEGImages holds neither {image_id}.jpg, .jpeg or .png nor "
                f"{annotation.filename}"
            )
        image = layout.join_image(name)
        width, height = annotation.width, annotation.height
        if width <= 0 or height <= 0 or extends_beyond(annotation.objects, width, height):
            width, height = read_image_size(image)
        objects, dropped = clip_objects(annotation.objects, width, height, where, classes)
        return ManifestRow(image_id, image, width, height, objects), dropped

    return read_row


def _make_unlabelled_reader(layout: _Layout) -> Callable[[str], tuple[ManifestRow, int]]:
    def read_row(image_id: str) -> tuple[ManifestRow, int]:
        name = _find_image(layout, image_id, None)
        if name is None:
            raise UnreadableDataset(
                f"image {image_id} does not exist in {uris.redact_uri(layout.join_image(''))}"
            )
        width, height = read_image_size(layout.join_image(name))
        return ManifestRow(image_id, layout.join_image(name), width, height, None), 0

    return read_row


def _find_image(layout: _Layout, image_id: str, filename: str | None) -> str | None:
    """The image's path from its id, or else from the file name in its annotation."""
    annotated = PurePosixPath(filename).suffix if filename else ""
    candidates = [image_id + suffix for suffix in (annotated, *_SUFFIXES) if suffix]
    candidates += [filename] if filename else []
    return next((name for name in candidates if name in layout.images), None)
