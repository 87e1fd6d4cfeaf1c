"""CVAT for images 1.1: one XML for a task or project, and a folder of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_labels, clip_objects
from pipeline.sources.cvat_xml import CvatImage, parse_cvat
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.image_links import find_named
from pipeline.sources.listing import Listing, list_files
from pipeline.sources.names import FileNames
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Tally
from pipeline.sources.unnamed_images import find_unnamed


def open_cvat(
    annotations: str, images: str, classes: Sequence[str] = (), options: SourceOptions = DEFAULT
) -> Dataset:
    """The images of a CVAT file, in its order; `image_id` is the image's path below the folder.

    Boxes, polygons, ellipses and masks become the upright box around them; a rotated box too. Other shapes
    have no area and are left out, and so are tags. An image without shapes has empty `objects`. A shape's
    attributes `difficult` and `is_crowd` set these flags.

    Args:
        annotations: the XML file, in any store.
        images: the folder that the names are relative to; images of a project may be in a folder per subset.
        classes: the labels in the order of their numbers; by default those of the task, in its order, or
            else those of all shapes, sorted.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the file is not of this format, or (while streaming) too many images are invalid.
        StorageError: the file or the store cannot be reached.
    """
    uri = uris.make_absolute(annotations)
    where = uris.redact_uri(uri)
    with storage.open_file(uri) as file:
        content = parse_cvat(file, where)
    if not content.images:
        raise UnreadableDataset(f"{where} holds no images")
    if not classes:
        used = {item.label for image in content.images for item in image.objects}
        classes = content.labels or tuple(sorted(used))
    listing = list_files(images, hidden=True)
    names = FileNames(listing)
    tally = Tally()
    stored = [_find_image(names, image, where) for image in content.images]
    counts = Counter(stored)
    add_repairs(tally, find_unnamed(listing, stored), options)
    labels = frozenset(classes)

    def read_image(index: int) -> ReadImage:
        image, path = content.images[index], stored[index]
        place = f"{where}: image {image.name}"
        if image.fault is not None:
            raise UnreadableDataset(image.fault)
        if path is None:
            find_named(names, image.name, place)
            raise UnreadableDataset(_describe_missing(listing, place))
        if counts[path] > 1:
            raise UnreadableDataset(f"{place}: {counts[path]} images of the file name {path}")
        check_labels(image.objects, labels, place)
        image_uri = uris.join(listing.root, path)
        stated = (image.width, image.height)
        settled = settle_size(image_uri, stated, image.objects, options, place)
        clipped, clips = clip_objects(settled.objects, settled.width, settled.height, place)
        row = ManifestRow(path, image_uri, settled.width, settled.height, clipped)
        return ReadImage(row, [*image.repairs, *settled.repairs, *clips])

    rows = stream_rows(range(len(stored)), read_image, tally, options)
    return Dataset(tuple(classes), None, rows, tally)


def _find_image(names: FileNames, image: CvatImage, where: str) -> str | None:
    """The path of an image: its name, or below the folder of its subset, as CVAT exports a project."""
    try:
        if image.subset:
            stored = find_named(names, f"{image.subset}/{image.name}", where)
            if stored is not None:
                return stored
        return find_named(names, image.name, where)
    except UnreadableDataset:
        return None  # reading the image raises it again


def _describe_missing(listing: Listing, place: str) -> str:
    return f"{place} does not exist in {uris.redact_uri(listing.root)}"
