"""The content of a COCO file in as little memory as reading its boxes needs, whatever the file's size.

The file is read once, one record at a time. What rows need of an image or annotation is kept as bytes, and
its ids as hashes of 64 bits: about 200 bytes per annotation, where Python's objects take a thousand and more.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson
from pipeline.sources.json_stream import JsonStream, ListLength
from pipeline.sources.scalars import is_absent, read_id, read_whole

Record = Mapping[str, Any]

_LISTS = ("images", "annotations", "categories")
_NO_ID = 0
_ANNOTATION_FIELDS = ("id", "image_id", "category_id", "bbox", "iscrowd", "ignore", "difficult")


@dataclass
class CompactRecords:
    """Records of which some fields are kept, with hashes of an id and of the whole content of each."""

    fields: Sequence[str]
    _bytes: bytearray = field(default_factory=bytearray)
    _ends: array[int] = field(default_factory=lambda: array("q"))
    _keys: array[int] = field(default_factory=lambda: array("q"))
    _contents: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, record: Record, key: int, content: int) -> None:
        """Add a record.

        Args:
            record: its other fields are dropped.
            key: hash of its id; 0 if it has none.
            content: hash of all its fields.

        Raises:
            InvalidJson: a kept field is nested too deep.
        """
        try:
            self._bytes += marshal.dumps({k: record[k] for k in self.fields if k in record})
        except ValueError:
            raise InvalidJson("it is nested too deep") from None
        self._ends.append(len(self._bytes))
        self._keys.append(key)
        self._contents.append(content)

    def read(self, index: int) -> Record:
        """The kept fields of a record."""
        start = self._ends[index - 1] if index else 0
        kept: Record = marshal.loads(self._bytes[start : self._ends[index]])  # noqa: S302  (own bytes)
        return kept

    @property
    def keys(self) -> NDArray[np.int64]:
        """Hashes of the ids, `(N,)`."""
        return np.array(self._keys, np.int64)

    def find_repeated(self) -> NDArray[np.bool_]:
        """Mask `(N,)` of the records with the id and the content of an earlier one."""
        keys = self.keys
        both = np.stack([keys, np.array(self._contents, np.int64)], axis=1)
        order = np.lexsort((np.arange(len(keys)), both[:, 1], both[:, 0]))
        ordered = both[order]
        repeated = np.zeros(len(keys), np.bool_)
        repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
        repeated &= keys != _NO_ID
        return repeated


@dataclass(frozen=True)
class CocoFile:
    """The records of a COCO file that are not repetitions, and how many of these there were."""

    where: str
    """The file that errors name."""
    images: CompactRecords
    image_order: NDArray[np.int64]
    """Indices of the images that are no repetition, `(N,)`."""
    annotations: CompactRecords
    categories: Sequence[Record]
    used_categories: Collection[int | None]
    """The ids that annotations name."""
    repeated_images: int
    repeated_annotations: int
    _annotation_order: NDArray[np.int64]
    """Indices of the annotations by image, in the file's order within an image."""
    _image_starts: NDArray[np.int64]
    """Of each entry of `image_order`, the first of its annotations in `_annotation_order`, and the end."""
    unlisted: NDArray[np.int64]
    """Indices of the annotations whose image is not listed."""

    def list_annotations(self, position: int) -> list[Record]:
        """The annotations of the image at a position of `image_order`."""
        start, stop = self._image_starts[position], self._image_starts[position + 1]
        return [self.annotations.read(int(i)) for i in self._annotation_order[start:stop]]


def read_coco_file(uri: str, image_fields: Sequence[str], unlabelled: bool = False) -> CocoFile:
    """Read a COCO file.

    Args:
        uri: the file, in any store.
        image_fields: the fields of an image that rows need.
        unlabelled: leave out the annotations.

    Raises:
        UnreadableDataset: it is not JSON, or lacks a list.
        StorageError: it cannot be read.
    """
    where = uris.redact_uri(uri)
    images, categories = CompactRecords(image_fields), list[Record]()
    annotations = CompactRecords((*_ANNOTATION_FIELDS, "segmentation"))
    image_keys, used = array("q"), set[int | None]()

    def receive(name: str, record: Any) -> None:
        if not isinstance(record, dict):
            raise UnreadableDataset(f"{where}: field {name} is not a list of objects")
        if name == "categories":
            categories.append(record)
        elif name == "images":
            images.append(record, _hash_id(record.get("id")), _hash_content(record))
        elif not unlabelled:
            content = _hash_content(record)
            if not is_absent(record.get("bbox")) and record["bbox"] != []:
                record.pop("segmentation", None)
            annotations.append(record, _hash_id(record.get("id")), content)
            image_keys.append(_hash_id(record.get("image_id")))
            used.add(_find_whole(record.get("category_id")))

    with storage.open_file(uri) as file:
        try:
            content = JsonStream(file).read_fields(_LISTS, receive)
        except InvalidJson as error:
            raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    _check_lists(content, where, unlabelled)
    repeated_images, repeated = images.find_repeated(), annotations.find_repeated()
    image_order = np.flatnonzero(~repeated_images)
    order, starts, unlisted = _group_by_image(
        np.array(image_keys, np.int64), repeated, images.keys[image_order]
    )
    return CocoFile(
        where,
        images,
        image_order,
        annotations,
        categories,
        used,
        int(repeated_images.sum()),
        int(repeated.sum()),
        order,
        starts,
        unlisted,
    )


def _check_lists(content: Any, where: str, unlabelled: bool) -> None:
    if not isinstance(content, dict):
        raise UnreadableDataset(
            f"{where} holds a JSON {type(content).__name__}, expected an object with "
            "images, annotations and categories"
        )
    for name in ("annotations", "categories", "images"):
        if name == "annotations" and unlabelled:
            continue
        if name not in content:
            hint = "; pass --unlabelled for a file without them" if name == "annotations" else ""
            raise UnreadableDataset(f"{where}: field {name} is missing{hint}")
        if not isinstance(content[name], ListLength):
            raise UnreadableDataset(f"{where}: field {name} is not a list of objects")
    if content["images"] == 0:
        raise UnreadableDataset(f"{where}: field images is empty")


def _group_by_image(
    keys: NDArray[np.int64], repeated: NDArray[np.bool_], images: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Annotations by image; of two images with one id, the last has them all."""
    sorter = np.argsort(images, kind="stable")
    place = np.searchsorted(images, keys, side="right", sorter=sorter) - 1
    owner = sorter[np.maximum(place, 0)]
    is_listed = (place >= 0) & (keys != _NO_ID) & (images[owner] == keys)
    candidates = np.flatnonzero(is_listed & ~repeated)
    order = candidates[np.argsort(owner[candidates], kind="stable")]
    counts = np.bincount(owner[order], minlength=len(images))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return order, starts, np.flatnonzero(~is_listed & ~repeated)


def _hash_content(record: dict[str, Any]) -> int:
    """A hash that equal records have in common. Version 2 of the bytes depends on the values alone."""
    try:
        return hash(marshal.dumps(record, 2))
    except ValueError:
        raise InvalidJson("it is nested too deep") from None


def _hash_id(value: Any) -> int:
    key = find_key(value)
    return _NO_ID if key is None else hash(key) or 1


def find_key(value: Any) -> str | None:
    """An id in the spelling in which ids are compared, or None if it is none."""
    if type(value) is int:
        return str(value)
    try:
        return read_id(value, "id", "")
    except UnreadableDataset:
        return None


def _find_whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    try:
        return read_whole(value, "category_id", "")
    except UnreadableDataset:
        return None


def find_shared(hashes: NDArray[np.int64]) -> Iterator[int]:
    """Positions of the values that occur more than once, in order; 0 never counts."""
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    yield from np.flatnonzero((counts[inverse] > 1) & (hashes != _NO_ID)).tolist()
