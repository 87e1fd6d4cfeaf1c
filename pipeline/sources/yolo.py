"""YOLO: a text file of labels per image, and a data.yaml (or a list of names) with the classes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline import image_formats, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import clip_objects
from pipeline.sources.data_yaml import DataYaml, check_distinct, parse_data_yaml
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.listing import list_files
from pipeline.sources.names import FileNames, check_inside, normalise
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.relative_boxes import settle_relative
from pipeline.sources.tally import Repair, Tally
from pipeline.sources.text_files import LARGEST_LABELS, read_lines
from pipeline.sources.yolo_labels import parse_labels

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "classes.names")
"""Class names, one a line: what Label Studio, labelImg and CVAT write instead of a data.yaml."""
_IMAGES, _LABELS = "images", "labels"


@dataclass(frozen=True)
class _Layout:
    """The folder of a YOLO dataset, the files that exist in it, and its classes."""

    root: str
    files: FileNames
    paths: tuple[str, ...]
    configuration: DataYaml
    where: str
    """The file of the classes."""


def open_yolo(root: str, split: str | None = None, options: SourceOptions = DEFAULT) -> Dataset:
    """The images of one split, by path or in the order of its list; `image_id` is the path below the root.

    The labels of `images/a/b.jpg` are in `labels/a/b.txt`, as Ultralytics looks for them, or else beside
    the image. An image without a label file has empty `objects`: YOLO calls it background. Each image's
    header is read, because boxes are shares of its sides.

    Args:
        root: the folder that holds data.yaml, or the file itself, in any store. A folder with a list of
            names (`classes.txt`) in its place is read too. Nothing outside this folder is read.
        split: a key of data.yaml, such as train; None takes all of `images`, for a dataset without splits.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: there are no classes, no such split or no images, or (while streaming) too many
            images or labels are invalid.
        StorageError: the store cannot be reached.
    """
    layout = _open_layout(root)
    tally = Tally()
    images = _list_images(layout, split, tally, options)
    labels = {path: _find_labels(layout.files, path) for path in images if path in layout.files}
    add_repairs(tally, _find_orphans(layout, labels), options)
    configuration = layout.configuration

    def read_image(path: str) -> ReadImage:
        place = f"{layout.where}: split {split}" if split else uris.redact_uri(layout.root)
        if path not in layout.files:
            check_inside(path, place)
            raise UnreadableDataset(f"{place} lists {path!r:.200}, which does not exist")
        uri, name = uris.join(layout.root, path), labels[path]
        label_uri = uris.join(layout.root, name) if name else uri
        where = uris.redact_uri(label_uri)
        lines = read_lines(label_uri) if name else []
        objects, repairs = parse_labels(
            lines, configuration.names, where, has_keypoints=configuration.has_keypoints
        )
        settled = settle_relative(uri, objects, options, where)
        clipped, faults = clip_objects(settled.objects, settled.width, settled.height, where)
        row = ManifestRow(path, uri, settled.width, settled.height, clipped)
        return ReadImage(row, [*repairs, *settled.repairs, *faults])

    ids = tuple(configuration.names)
    return Dataset(
        tuple(configuration.names.values()),
        None if ids == tuple(range(len(ids))) else ids,
        stream_rows(images, read_image, tally, options),
        tally,
    )


def _open_layout(root: str) -> _Layout:
    uri = uris.make_absolute(root)
    named = posixpath.basename(uri) if uri.lower().endswith((".yaml", ".yml")) else None
    listing = list_files(uri.removesuffix(f"/{named}") if named else uri, hidden=False)
    top = [path for path in listing.files if "/" not in path]
    place = uris.redact_uri(listing.root)
    found = named or next((name for name in _YAML_NAMES if name in top), None)
    if found is None:
        others = [name for name in top if name.endswith((".yaml", ".yml"))]
        found = others[0] if len(others) == 1 else None
    name_list = next((name for name in _NAME_LISTS if name in top), None)
    if found is None and name_list is None:
        raise UnreadableDataset(
            f"{place} holds neither data.yaml nor a list of class names ({', '.join(_NAME_LISTS)}); "
            f"files there: {', '.join(top[:12]) or 'none'}"
        )
    where = uris.redact_uri(uris.join(listing.root, found or name_list or ""))
    if found is not None:
        data = storage.read(uris.join(listing.root, found), LARGEST_LABELS)
        configuration = parse_data_yaml(data, where)
    else:
        names = [name for _, name in read_lines(uris.join(listing.root, name_list or ""))]
        if not names:
            raise UnreadableDataset(f"{where} lists no classes")
        numbered = dict(enumerate(names))
        check_distinct(numbered, where)
        configuration = DataYaml(numbered, {}, None, False)
    return _Layout(listing.root, FileNames(listing), listing.files, configuration, where)


def _list_images(
    layout: _Layout, split: str | None, tally: Tally, options: SourceOptions
) -> list[str]:
    """The split's images: paths below the root as they are stored, or as a list writes missing ones."""
    places = _list_places(layout, split)
    images: dict[str, str] = {}
    repeated = []
    for place in places:
        for path in _expand(layout, place):
            if path not in images:
                images[path] = place
                continue
            places_of = dict.fromkeys((images[path], place))
            detail = f"{layout.where}: {path} is listed again in {' and '.join(places_of)}"
            repeated.append(Repair("image", "listed again: left out there", detail, is_loss=True))
    if not images:
        raise UnreadableDataset(
            f"{layout.where}: no images in {', '.join(places)} below {uris.redact_uri(layout.root)}"
        )
    add_repairs(tally, repeated, options)
    return list(images)


def _list_places(layout: _Layout, split: str | None) -> tuple[str, ...]:
    """The folders and lists of a split, below the root."""
    splits = layout.configuration.splits
    if split is None:
        if len(set(splits.values())) > 1:
            raise UnreadableDataset(
                f"{layout.where} has the splits {', '.join(splits)}: choose one with --split"
            )
        values = next(iter(splits.values()), (_IMAGES,))
    elif split in splits:
        values = splits[split]
    else:
        values = (f"{_IMAGES}/{split}", f"{split}/{_IMAGES}", f"{split}.txt")
        places = [place for place in values if _exists(layout, place)]
        if splits or not places:
            raise UnreadableDataset(
                f"{layout.where}: no split {split!r} (splits: {', '.join(splits) or 'none'})"
            )
        return tuple(places[:1])
    return tuple(_resolve(layout, split, value) for value in values)


def _resolve(layout: _Layout, split: str | None, value: str) -> str:
    """A split's folder or list below the root, however the file writes it.

    `path` and `../` at the start are often those of another machine: both are tried without, and what exists
    in the dataset's own folder counts.
    """
    bases = [layout.configuration.path or ""]
    bases += [""] if bases[0] else []
    tried = []
    for base in bases:
        for text in (value, value.removeprefix("../")):
            place = _place_below(layout, posixpath.join(base, text.replace("\\", "/")))
            if place is not None and _exists(layout, place):
                return place
            tried.append(posixpath.join(base, text))
    raise UnreadableDataset(
        f"{layout.where}: split {split} is {value!r:.200}, which does not exist below "
        f"{uris.redact_uri(layout.root)} or is empty (tried {', '.join(dict.fromkeys(tried))})"
    )


def _place_below(layout: _Layout, path: str) -> str | None:
    """The path relative to the root; None if it leads out of it."""
    root = layout.root.rstrip("/") + "/"
    cleaned = posixpath.normpath(path.removeprefix(root))
    if cleaned in (".", layout.root):
        return "."
    try:
        return check_inside(cleaned, layout.where)
    except UnreadableDataset:
        return None


def _exists(layout: _Layout, place: str) -> bool:
    return place == "." or place in layout.files or next(_below(layout, place), None) is not None


def _below(layout: _Layout, place: str) -> Iterator[str]:
    prefix = "" if place == "." else f"{place}/"
    return (path for path in layout.paths if path.startswith(prefix))


def _expand(layout: _Layout, place: str) -> Iterator[str]:
    """The images of a folder, at any depth, or of a list."""
    if place not in layout.files:
        yield from filter(image_formats.is_image_name, _below(layout, place))
        return
    folder = posixpath.dirname(place)
    for number, line in read_lines(uris.join(layout.root, place)):
        where = f"{layout.where}: {place}, line {number}"
        plain = line.replace("\\", "/")
        inside = _place_below(layout, plain)
        candidates = [posixpath.normpath(posixpath.join(folder, plain)), inside]
        candidates = candidates if plain.startswith("./") else candidates[::-1]
        stored = (layout.files.find(path, where) for path in candidates if path is not None)
        yield next(filter(None, stored), inside or plain)


def _find_labels(files: FileNames, image: str) -> str | None:
    """The label file of an image."""
    stored = (files.find(name, image) for name in _name_labels(image))
    return next(filter(None, stored), None)


def _name_labels(image: str) -> list[str]:
    """Where an image's labels may be: below `labels` instead of the last folder `images`, or beside it."""
    beside = posixpath.splitext(image)[0] + ".txt"
    parts = beside.split("/")
    if _IMAGES not in parts[:-1]:
        return [beside]
    last = len(parts) - 2 - parts[-2::-1].index(_IMAGES)
    return ["/".join([*parts[:last], _LABELS, *parts[last + 1 :]]), beside]


def _find_orphans(layout: _Layout, labels: Mapping[str, str | None]) -> Iterator[Repair]:
    """Label files without an image, in the folders that hold labels of the split."""
    used = {name for name in labels.values() if name is not None}
    folders = {posixpath.dirname(name) for name in used} - {""}
    images = filter(image_formats.is_image_name, layout.paths)
    expected = {normalise(name) for image in images for name in _name_labels(image)}
    for path in layout.paths:
        folder, _, name = path.rpartition("/")
        is_label = folder in folders and name.endswith(".txt") and name not in _NAME_LISTS
        if is_label and path not in used and normalise(path) not in expected:
            detail = f"{uris.redact_uri(uris.join(layout.root, path))} has no image"
            yield Repair("label file", "without an image: left out", detail, is_loss=True)
