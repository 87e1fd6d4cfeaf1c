"""Label Studio: one JSON export of a project, and a folder of its images or their addresses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import check_labels, clip_objects
from pipeline.sources.dataset import Dataset, ReadImage, add_repairs, stream_rows
from pipeline.sources.image_links import check_link, find_linked
from pipeline.sources.json_stream import JsonStream
from pipeline.sources.labelstudio_tasks import LabelledTask, read_task
from pipeline.sources.listing import list_files
from pipeline.sources.names import FileNames
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Tally
from pipeline.sources.unnamed_images import find_unnamed

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts in front of the name of an uploaded file."""


@dataclass(frozen=True)
class _Task:
    """One task, or why it is invalid, and its image: the path below the folder, or its address."""

    labelled: LabelledTask | None
    image: str | None
    fault: str | None = None


def open_labelstudio(
    annotations: str,
    images: str | None = None,
    *,
    image_key: str | None = None,
    classes: Sequence[str] = (),
    options: SourceOptions = DEFAULT,
) -> Dataset:
    """The images of a Label Studio export in the format JSON or JSON-MIN, in its order.

    `image_id` is the image's path below the folder, or its address. A task that nobody annotated has null
    `objects`; one with an annotation of no region is known to be empty. The export is read task by task, and
    the objects stay in memory: about 300 bytes each.

    Args:
        annotations: the JSON file, in any store.
        images: the folder of the images. A task's image is found by the end of its path, as long as possible,
            with or without the eight digits that Label Studio puts in front of an uploaded file's name.
            None reads each image from its address, which must be on the web or in a store.
        image_key: the key of the image in a task's `data`; by default `image`, or the only text.
        classes: the labels in the order of their numbers; by default those of all regions, sorted.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: the file is not such an export, or (while streaming) too many tasks are invalid.
        StorageError: the file or the store cannot be reached.
    """
    uri = uris.make_absolute(annotations)
    where = uris.redact_uri(uri)
    listing = list_files(images, hidden=True) if images is not None else None
    names = FileNames(listing) if listing is not None else None
    tasks = _read_tasks(uri, where, names, image_key)
    if not tasks:
        raise UnreadableDataset(f"{where} holds no tasks")
    tally = Tally()
    counts = Counter(task.image for task in tasks)
    if listing is not None:
        add_repairs(tally, find_unnamed(listing, counts), options)
    classes = classes or _list_labels(tasks)
    labels = frozenset(classes)

    def read_image(index: int) -> ReadImage:
        task, place = tasks[index], f"{where}: task {index}"
        labelled, image = task.labelled, task.image
        if labelled is None or image is None:
            raise UnreadableDataset(task.fault or place)
        if counts[image] > 1:
            raise UnreadableDataset(f"{place}: {counts[image]} tasks of {uris.redact_uri(image)}")
        objects = labelled.objects or ()
        check_labels(objects, labels, place)
        image_uri = uris.join(listing.root, image) if listing is not None else image
        stated = (labelled.width, labelled.height)
        settled = settle_size(image_uri, stated, objects, options, place)
        clipped, clips = clip_objects(settled.objects, settled.width, settled.height, place)
        kept = None if labelled.objects is None else clipped
        row = ManifestRow(image, image_uri, settled.width, settled.height, kept)
        return ReadImage(row, [*labelled.repairs, *settled.repairs, *clips])

    rows = stream_rows(range(len(tasks)), read_image, tally, options)
    return Dataset(tuple(classes), None, rows, tally)


def _list_labels(tasks: Sequence[_Task]) -> list[str]:
    """The labels of all regions, sorted."""
    labelled = (task.labelled for task in tasks)
    return sorted({item.label for task in labelled if task for item in task.objects or ()})


def _read_tasks(
    uri: str, where: str, names: FileNames | None, image_key: str | None
) -> list[_Task]:
    tasks: list[_Task] = []
    with storage.open_file(uri) as file:
        try:
            stream = JsonStream(file)
            if not stream.is_list():
                raise UnreadableDataset(
                    f"{where} is no list of tasks; export the project in the format JSON or JSON-MIN"
                )
            for content in stream.iterate_list():
                tasks.append(_read_task(content, f"{where}: task {len(tasks)}", names, image_key))
            stream.check_end()
        except InvalidJson as error:
            raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    return tasks


def _read_task(
    content: object, place: str, names: FileNames | None, image_key: str | None
) -> _Task:
    try:
        labelled = read_task(content, image_key, place)
        if names is None:
            return _Task(labelled, check_link(labelled.image, "image", place))
        stored = _find_image(names, labelled.image, place)
    except UnreadableDataset as error:
        return _Task(None, None, str(error))
    shown = uris.redact_uri(labelled.image)
    fault = f"{place}: {shown!r} does not exist in the folder of the images"
    return _Task(labelled, stored, None if stored else fault)


def _find_image(names: FileNames, image: str, where: str) -> str | None:
    """The path of a task's image: an upload, a local file (`?d=path`), or an address."""
    path, _, query = image.partition("?")
    local = parse_qs(query).get("d")
    address = local[0] if local and "://" not in image else path
    stored = find_linked(names, address, where)
    if stored is None:
        folder, _, name = unquote(address).replace("\\", "/").rpartition("/")
        if _UPLOADED.match(name):
            stored = find_linked(names, f"{folder}/{_UPLOADED.sub('', name, count=1)}", where)
    return stored
