"""PASCAL VOC: one XML file per image, and lists of ids for the splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline import image_formats, storage, uris
from pipeline.errors import AccessDenied, MissingObject, UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_labels, clip_objects
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, map_in_threads, stream_rows
from pipeline.sources.listing import check_public
from pipeline.sources.names import check_inside
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Repair, Tally
from pipeline.sources.text_files import decode_text
from pipeline.sources.voc_layout import (
    VocLayout,
    find_image,
    list_annotations,
    list_ids,
    normalise_id,
    open_layout,
)
from pipeline.sources.voc_xml import LARGEST_FILE, VocAnnotation, parse_annotation

STANDARD_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 classes of VOC2007 to VOC2012, in the order of the challenge."""

_LISTS_SHOWN = 12
MOST_KEPT = 50_000
"""Annotations that stay in memory after their classes were collected, at most a kilobyte each as a rule."""
_CLASS_LIST_LINE = re.compile(r"(.*\S)\s+(-1|0|1)")
"""A line of the list of one class: an id, and whether the image shows the class."""


def open_voc(
    root: str,
    split: str | None,
    year: int | None = None,
    *,
    classes: Sequence[str] = (),
    unlabelled: bool = False,
    options: SourceOptions = DEFAULT,
) -> Dataset:
    """Open one split of a VOC dataset, in the order of its list; `image_id` is the file's stem.

    The classes are `classes` if set. Otherwise they are the 20 standard classes if `year` is set and no
    annotation has another label, or else all labels of all annotations, sorted. So all splits number labels
    alike.

    Args:
        root: a devkit that holds VOC<year>, or a folder that itself holds JPEGImages, Annotations
            and ImageSets, in any store.
        split: a list in ImageSets/Main; None reads every annotation (or image, if unlabelled), and needs no
            lists. The images may then be in `images` or the root itself instead of JPEGImages, and the
            annotations in `annotations` or the root itself.
        year: the year of the devkit; None if `root` itself holds the data.
        classes: the labels in the order of their numbers.
        unlabelled: read no annotations (VOC's later test splits have none).
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: a folder or list is missing or invalid, or (while streaming) too many
            annotations or images are.
        StorageError: the store cannot be reached.
    """
    root = uris.make_absolute(root)
    check_public(root)
    layout = open_layout(root, year, unlabelled, needs_lists=split is not None)
    tally = Tally()
    ids = (
        list_ids(layout, unlabelled) if split is None else _read_list(layout, split, tally, options)
    )
    parsed: dict[str, VocAnnotation] = {}
    if not classes and not unlabelled:
        classes = _collect_classes(
            layout,
            year is not None,
            frozenset(map(normalise_id, ids)),
            tally,
            options,
            parsed=parsed,
        )
    reader = (
        _make_unlabelled_reader(layout, options)
        if unlabelled
        else _make_labelled_reader(layout, frozenset(classes), options, parsed)
    )
    rows = stream_rows(ids, reader, tally, options)
    return Dataset(tuple(classes) if classes or not unlabelled else None, None, rows, tally)


def _read_list(layout: VocLayout, split: str, tally: Tally, options: SourceOptions) -> list[str]:
    """The ids of a split, each once."""
    lists = uris.join(layout.folder, "ImageSets", "Main")
    names = [
        name.removesuffix(".txt") for name in storage.list_names(lists) if name.endswith(".txt")
    ]
    if split not in names:
        names.sort(key=lambda name: ("_" in name, name))  # the lists of single classes last
        more = f" and {len(names) - _LISTS_SHOWN} more" if len(names) > _LISTS_SHOWN else ""
        raise UnreadableDataset(
            f"VOC list ImageSets/Main/{split}.txt does not exist in {uris.redact_uri(layout.folder)}; "
            f"lists here: {', '.join(names[:_LISTS_SHOWN]) or 'none'}{more}"
        )
    uri = uris.join(lists, f"{split}.txt")
    where = uris.redact_uri(uri)
    text = decode_text(storage.read(uri), where)
    lines = [(number, line.strip()) for number, line in enumerate(re.split("\r\n?|\n", text), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UnreadableDataset(f"{where} lists no images")
    ids: dict[str, int] = {}
    repeated = []
    for number, line in lines:
        image_id = _read_line(layout, line, f"{where}, line {number},")
        first = ids.setdefault(image_id, number)
        if first < number:
            detail = f"{where} lists {image_id} twice (lines {first} and {number})"
            repeated.append(Repair("image", "listed again: left out there", detail, is_loss=True))
    add_repairs(tally, repeated, options)
    return list(ids)


def _read_line(layout: VocLayout, line: str, where: str) -> str:
    """The id that a line of a list names: the line itself, or without the ending of an image.

    Raises:
        UnreadableDataset: the line is of the list of one class, or leads out of the dataset.
    """
    cleaned = check_inside(line, where)
    if layout.is_id(cleaned):
        return cleaned
    class_line = _CLASS_LIST_LINE.fullmatch(line)
    if class_line and layout.is_id(check_inside(class_line[1], where)):
        raise UnreadableDataset(
            f"{where} has 2 columns ({line!r}): it looks like the list of one class; "
            "choose a split of all classes, such as train"
        )
    return cleaned.rpartition(".")[0] if image_formats.is_image_name(cleaned) else cleaned


def _collect_classes(
    layout: VocLayout,
    prefer_standard: bool,
    listed: frozenset[str],
    tally: Tally,
    options: SourceOptions,
    *,
    parsed: dict[str, VocAnnotation],
) -> tuple[str, ...]:
    """The classes of all annotations; an unreadable one is counted here unless the split lists it.

    The first annotations of the split are kept in `parsed`, by their names, so that they are read once.
    """

    def read(name: str) -> VocAnnotation:
        uri = uris.join(layout.annotation_root, name)
        return parse_annotation(storage.read(uri, LARGEST_FILE), uris.redact_uri(uri))

    names = list_annotations(layout)
    labels: set[str] = set()
    unread = []
    for name, outcome in zip(names, map_in_threads(read, names), strict=True):
        try:
            annotation = outcome.result()
            labels.update(item.label for item in annotation.objects)
            if len(parsed) < MOST_KEPT and normalise_id(name[: -len(".xml")]) in listed:
                parsed[name] = annotation
        except (UnreadableDataset, MissingObject, AccessDenied) as error:
            if normalise_id(name[: -len(".xml")]) not in listed:
                outcome_text = "of another split unreadable: its classes are not known"
                unread.append(Repair("annotation", outcome_text, str(error), is_loss=True))
    add_repairs(tally, unread, options)
    if prefer_standard and labels <= set(STANDARD_CLASSES):
        return STANDARD_CLASSES
    return tuple(sorted(labels))


def _make_labelled_reader(
    layout: VocLayout,
    classes: frozenset[str],
    options: SourceOptions,
    parsed: dict[str, VocAnnotation],
) -> Callable[[str], ReadImage]:
    def read_image(image_id: str) -> ReadImage:
        name = layout.find_annotation(image_id)
        uri = uris.join(layout.annotation_root, name or f"{image_id}.xml")
        where = uris.redact_uri(uri)
        if name is None:
            has_image = find_image(layout, image_id, None) is not None
            missing = "an annotation" if has_image else "an annotation and an image"
            raise UnreadableDataset(f"{image_id} lacks {missing}: {where} does not exist")
        annotation = parsed.pop(name, None)
        if annotation is None:
            annotation = parse_annotation(storage.read(uri, LARGEST_FILE), where)
        check_labels(annotation.objects, classes, where)
        stored = find_image(layout, image_id, annotation.filename)
        if stored is None:
            named = f" nor {annotation.filename!r}" if annotation.filename else ""
            raise UnreadableDataset(
                f"{where} has no image: JPEGImages holds no image named {image_id}{named}"
            )
        image = uris.join(layout.image_root, stored)
        stated = (annotation.width, annotation.height)
        settled = settle_size(image, stated, annotation.objects, options, where)
        objects, repairs = clip_objects(settled.objects, settled.width, settled.height, where)
        flag = Repair("object", "with difficult unspecified: taken as not difficult", where)
        repairs += [*settled.repairs, *[flag] * annotation.unset_flags]
        repairs += _compare_names(layout, image_id, annotation.filename, where)
        return ReadImage(
            ManifestRow(image_id, image, settled.width, settled.height, objects), repairs
        )

    return read_image


def _make_unlabelled_reader(
    layout: VocLayout, options: SourceOptions
) -> Callable[[str], ReadImage]:
    def read_image(image_id: str) -> ReadImage:
        name = find_image(layout, image_id, None)
        if name is None:
            raise UnreadableDataset(
                f"image {image_id} does not exist in {uris.redact_uri(layout.image_root)}"
            )
        image = uris.join(layout.image_root, name)
        settled = settle_size(image, (0, 0), (), options, uris.redact_uri(image))
        row = ManifestRow(image_id, image, settled.width, settled.height, None)
        return ReadImage(row, [*settled.repairs, *_compare_names(layout, image_id, None, image_id)])

    return read_image


def _compare_names(
    layout: VocLayout, image_id: str, filename: str | None, where: str
) -> list[Repair]:
    """What id and file name contradict each other in, though the id decides."""
    repairs = []
    if len(layout.images_by_stem.get(normalise_id(image_id), [])) > 1:
        repairs.append(Repair("id", "with several images: the annotated or first ending", where))
    named = (filename or "").replace("\\", "/").rpartition("/")[2]
    if named in layout.images and image_formats.is_image_name(named):
        stem = normalise_id(named.rpartition(".")[0])
        if stem != normalise_id(image_id).rpartition("/")[2]:
            outcome = "that names the image of another id: its own id decides"
            repairs.append(Repair("annotation", outcome, where))
    return repairs
