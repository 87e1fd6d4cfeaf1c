"""LabelMe: a JSON file per image, beside it or in another folder of the dataset."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import image_formats, storage, uris
from pipeline.errors import AccessDenied, MissingObject, UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_labels, clip_objects
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, map_in_threads, stream_rows
from pipeline.sources.labelme_json import LabelmeAnnotation, parse_labelme
from pipeline.sources.listing import Listing, list_files
from pipeline.sources.names import FileNames, normalise
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Tally
from pipeline.sources.unnamed_images import find_unnamed

LARGEST_FILE = 1_000_000_000
"""Bytes of the largest annotation that is read: by default, LabelMe puts the image into it."""


@dataclass(frozen=True)
class _Annotated:
    """One JSON file: what it says, or why it is invalid, and the path of its image."""

    path: str
    annotation: LabelmeAnnotation | None
    image: str | None
    fault: str | None = None


def open_labelme(
    root: str, classes: Sequence[str] = (), options: SourceOptions = DEFAULT
) -> Dataset:
    """All images below a folder that have a LabelMe annotation; `image_id` is the image's path below it.

    An image is where `imagePath` says, relative to the annotation, or else beside the annotation under the
    last part of that name or the name of the annotation. The image that an annotation may itself hold is not
    read. Annotations are read once, and their objects stay in memory: about 300 bytes each.

    Args:
        root: the folder, in any store. Nothing outside it is read.
        classes: the labels in the order of their numbers; by default those of all shapes, sorted.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the folder holds no annotation, or (while streaming) too many are invalid.
        StorageError: the store cannot be reached.
    """
    listing = list_files(root, hidden=False)
    tally = Tally()
    paths = [path for path in listing.files if path.lower().endswith(".json")]
    annotated = _read_annotations(listing, paths, tally)
    if not annotated:
        raise UnreadableDataset(
            f"{uris.redact_uri(listing.root)} holds no LabelMe annotation (a .json file with shapes and "
            f"imagePath) at any depth; .json files there: {len(paths)}"
        )
    counts = Counter(item.image for item in annotated)
    add_repairs(tally, find_unnamed(listing, counts), options)
    if not classes:
        read = (item.annotation for item in annotated)
        classes = sorted({item.label for entry in read if entry for item in entry.objects})
    labels = frozenset(classes)

    def read_image(item: _Annotated) -> ReadImage:
        where = uris.redact_uri(uris.join(listing.root, item.path))
        if item.annotation is None:
            raise UnreadableDataset(item.fault or where)
        if item.image is None:
            name = item.annotation.image_path
            raise UnreadableDataset(f"{where} has no image: {name!r} does not exist")
        if counts[item.image] > 1:
            raise UnreadableDataset(f"{where}: {counts[item.image]} annotations of {item.image}")
        annotation = item.annotation
        check_labels(annotation.objects, labels, where)
        uri = uris.join(listing.root, item.image)
        stated = (annotation.width, annotation.height)
        settled = settle_size(uri, stated, annotation.objects, options, where)
        clipped, clips = clip_objects(settled.objects, settled.width, settled.height, where)
        row = ManifestRow(item.image, uri, settled.width, settled.height, clipped)
        return ReadImage(row, [*annotation.repairs, *settled.repairs, *clips])

    rows = stream_rows(annotated, read_image, tally, options)
    return Dataset(tuple(classes), None, rows, tally)


def _read_annotations(listing: Listing, paths: Sequence[str], tally: Tally) -> list[_Annotated]:
    """The annotations in the order of their paths; JSON of another kind is counted."""
    names = FileNames(listing)
    by_stem: dict[str, str] = {}
    for name in filter(image_formats.is_image_name, listing.files):
        by_stem.setdefault(_get_stem(name), name)

    def read(path: str) -> LabelmeAnnotation | None:
        uri = uris.join(listing.root, path)
        return parse_labelme(storage.read(uri, LARGEST_FILE), uris.redact_uri(uri))

    annotated = []
    for path, outcome in zip(paths, map_in_threads(read, paths), strict=True):
        try:
            annotation = outcome.result()
        except (UnreadableDataset, MissingObject, AccessDenied) as error:
            annotated.append(_Annotated(path, None, by_stem.get(_get_stem(path)), str(error)))
            continue
        if annotation is None:
            tally.files_left_out[".json of another kind"] += 1
            continue
        image = _find_image(names, path, annotation.image_path)
        image = image or by_stem.get(_get_stem(path))
        annotated.append(_Annotated(path, annotation, image))
    return annotated


def _find_image(names: FileNames, path: str, image_path: str | None) -> str | None:
    """The image that an annotation names, relative to its folder, or its last part beside it."""
    plain = (image_path or "").replace("\\", "/")
    folder = posixpath.dirname(path)
    for name in (plain, plain.rpartition("/")[2]):
        stored = (
            names.find(posixpath.normpath(posixpath.join(folder, name)), path) if name else None
        )
        if stored is not None and image_formats.is_image_name(stored):
            return stored
    return None


def _get_stem(path: str) -> str:
    return normalise(posixpath.splitext(path)[0] + ".").removesuffix(".")
