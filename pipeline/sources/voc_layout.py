"""The folders of a VOC dataset and the files in them, found by the id of an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline import image_formats, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.sources.image_stems import ImageStems
from pipeline.sources.listing import Listing, is_hidden, list_files
from pipeline.sources.names import FileNames, normalise

_YEARS = range(2005, 2013)
_PREFERRED = (".jpg", ".jpeg", ".png")
"""The endings that come first if an id has several images and its annotation names none of them."""


@dataclass(frozen=True)
class VocLayout:
    """The folder of a VOC dataset and the files that exist in it."""

    folder: str
    images: FileNames
    image_root: str
    annotations: FileNames
    annotation_root: str
    annotation_names: tuple[str, ...]
    images_by_stem: dict[str, list[str]]
    """Paths of the images by their path without ending, in normalised spelling."""
    stems: ImageStems

    def find_annotation(self, image_id: str) -> str | None:
        """The annotation's path below its folder, or None."""
        return self.annotations.find(f"{image_id}.xml", f"the id {image_id!r}")

    def is_id(self, text: str) -> bool:
        """Whether an annotation or an image has this id."""
        return self.find_annotation(text) is not None or normalise_id(text) in self.images_by_stem


def normalise_id(image_id: str) -> str:
    """The id in the spelling in which images are looked up by their stem."""
    return normalise(image_id + ".").removesuffix(".")


def open_layout(root: str, year: int | None, unlabelled: bool, *, needs_lists: bool) -> VocLayout:
    """List the files of a VOC dataset.

    Args:
        root: the dataset's folder, or its devkit.
        year: of the devkit; None if `root` itself holds the data.
        unlabelled: annotations are not needed.
        needs_lists: it must have ImageSets; without, its images and annotations may be in other folders.

    Raises:
        UnreadableDataset: a folder is missing.
        StorageError: the store cannot be reached.
    """
    folder = root if year is None else uris.join(root, f"VOC{year}")
    image_folder, annotation_folder = "JPEGImages", "Annotations"
    if not needs_lists and year is None:
        image_folder = _choose_folder(folder, (image_folder, "images", "Images"))
        annotation_folder = _choose_folder(folder, (annotation_folder, "annotations", "xmls"))
    folders = [image_folder] + (["ImageSets"] if needs_lists else [])
    folders += [] if unlabelled else [annotation_folder]
    missing = [name for name in folders if name and not storage.is_folder(uris.join(folder, name))]
    years: list[str] = []
    if missing or not image_folder:
        years = [str(y) for y in _YEARS if storage.is_folder(uris.join(root, f"VOC{y}"))]
    missing += ["JPEGImages"] if years and not image_folder else []
    if missing:
        hint = (
            f"; {uris.redact_uri(root)} is a devkit: set the year to one of {', '.join(years)}"
            if years
            else ""
        )
        if year is not None and storage.is_folder(uris.join(root, "JPEGImages")):
            hint = f"; {uris.redact_uri(root)} holds JPEGImages itself: omit the year"
        if missing == ["ImageSets"]:
            hint = "; leave out the split to read every annotation"
        raise UnreadableDataset(
            f"{uris.redact_uri(folder)} is not a VOC dataset: it has no folder {', '.join(missing)}{hint}"
        )
    images = list_files(uris.join(folder, image_folder), hidden=True)
    annotations_uri = uris.join(folder, annotation_folder)
    annotations = None if unlabelled else list_files(annotations_uri, hidden=True)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in images.files:
        if image_formats.is_image_name(name):
            by_stem[normalise_id(name.rpartition(".")[0])].append(name)
    return VocLayout(
        folder,
        FileNames(images),
        images.root,
        FileNames(annotations or Listing("", ())),
        annotations.root if annotations else "",
        annotations.files if annotations else (),
        dict(by_stem),
        ImageStems(images),
    )


def _choose_folder(root: str, names: Sequence[str]) -> str:
    """The first of the folders that exists, or the root itself."""
    return next((name for name in names if storage.is_folder(uris.join(root, name))), "")


def list_ids(layout: VocLayout, unlabelled: bool) -> list[str]:
    """The sorted ids of all annotations, or of all images.

    Raises:
        UnreadableDataset: there are none.
    """
    if unlabelled:
        ids = [names[0].rpartition(".")[0] for names in layout.images_by_stem.values()]
    else:
        ids = [name[: -len(".xml")] for name in list_annotations(layout)]
    ids = [name for name in ids if not any(map(is_hidden, name.split("/")))]
    if not ids:
        kind = "image" if unlabelled else "annotation (.xml)"
        raise UnreadableDataset(f"{uris.redact_uri(layout.folder)} holds no {kind} at any depth")
    return sorted(ids)


def list_annotations(layout: VocLayout) -> list[str]:
    """The paths of the annotations below their folder, without hidden ones."""
    return [
        name
        for name in layout.annotation_names
        if name.lower().endswith(".xml") and not any(map(is_hidden, name.split("/")))
    ]


def find_image(layout: VocLayout, image_id: str, filename: str | None) -> str | None:
    """The image's path from its id, or else from the last part of the file name in its annotation.

    Raises:
        UnreadableDataset: it may be any of several files.
    """
    same_stem = layout.images_by_stem.get(normalise_id(image_id), [])
    ending = PurePosixPath(filename).suffix.lower() if filename else ""
    order = (ending, *_PREFERRED)
    ranked = sorted(
        same_stem,
        key=lambda name: (
            not name.startswith(f"{image_id}."),  # the exact spelling first
            next((i for i, e in enumerate(order) if name.lower().endswith(e) and e), len(order)),
            name,
        ),
    )
    if ranked:
        return ranked[0]
    plain = (filename or "").replace("\\", "/")
    named = layout.images.find(plain.rpartition("/")[2]) if plain else None
    if (
        named is None and "/" not in image_id
    ):  # the images may be in folders, the annotations in one
        return layout.stems.find(image_id, f"the image of the id {image_id!r}")
    return named
