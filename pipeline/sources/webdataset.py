"""WebDataset: tar files of images, each with its annotation beside it under the same key."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pipeline import imaging, storage, uris
from pipeline.errors import TooManyInvalidImages, UnreadableDataset, UnreadableImage
from pipeline.image_members import Member
from pipeline.imaging import ImageHeader
from pipeline.json_reader import InvalidJson, parse_json
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.contained_images import ContainedImage, build_contained_row
from pipeline.sources.dataset import (
    IMAGE_FAULTS,
    READER_THREADS,
    Dataset,
    ReadImage,
    choose_mapper,
    stream_groups,
)
from pipeline.sources.listed_labels import ListedLabels, collect_labels
from pipeline.sources.object_fields import ObjectFields, parse_objects
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.patterns import expand_patterns
from pipeline.sources.sizes import HEADER_BYTES, parse_image_header
from pipeline.sources.tally import Repair, Tally
from pipeline.sources.tar_index import BLOCK_BYTES, TarIndex, TarMember

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)")
"""A key, and behind the first dot of the file's name its ending, as WebDataset splits them."""
_LARGEST_OBJECTS = 64 << 20
"""Bytes of the annotation of one image."""
_NO_END = ("tar file", "without the mark of its end: it may be cut off")
_DAMAGED = ("tar file", "damaged: what lies behind the damage is left out")
_LINK = ("tar member", "without content (link to another): left out")
_PLACES = ("objects", "annotations")
"""Fields of a JSON annotation that hold its objects, if the annotation itself does not."""


@dataclass(frozen=True)
class WebDatasetLayout:
    """Which members of the tar files are images, and which their annotations."""

    image_keys: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """Endings of images; of a sample with several, the first of these."""
    objects_key: str | None = None
    """Ending of the JSON annotation beside an image, such as json; without it, images are not annotated."""
    fields: ObjectFields = field(default_factory=ObjectFields)
    """Where labels and boxes are in the annotation."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers."""
    prefix_ids: bool = False
    """Put the tar file's name before each key: for tar files that number their images alike."""


@dataclass(frozen=True)
class _Sample:
    """The members of one key."""

    key: str
    members: dict[str, TarMember]
    """By ending."""


def open_webdataset(
    tars: Sequence[str],
    layout: WebDatasetLayout | None = None,
    options: SourceOptions = DEFAULT,
) -> Dataset:
    """The images of uncompressed tar files, in the order of the files; `image_id` is the sample's key.

    Only headers are read: of the tar files in blocks of 64 KiB, and in them of the images. The manifest's
    rows hold where each image lies, so nothing is unpacked. Several tar files are read side by side.

    Args:
        tars: tar files in any store; `*`, `?` and `{000..127}` stand for several, a folder for its tar files.
        layout: which members are images and annotations.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: there is no tar file, one is compressed or holds no image, or (while streaming) too
            many images are invalid or tar files damaged.
        StorageError: a tar file does not exist, or its store cannot be reached.
    """
    layout = layout or WebDatasetLayout()
    tar_uris = expand_patterns(tars, (".tar",))
    tally = Tally()
    reader = _TarReader(layout, options)
    classes: tuple[str, ...] | None = None
    if layout.objects_key is not None:
        classes = layout.classes or _list_labels(reader, tar_uris, options)
        reader.labels = frozenset(classes)
    rows = stream_groups(tar_uris, reader.read, tally, options)
    rows = _check_damaged(rows, tally, len(tar_uris), options)
    return Dataset(classes, None, rows, tally, has_members=True)


def _check_damaged(
    rows: Iterator[ManifestRow], tally: Tally, tar_files: int, options: SourceOptions
) -> Iterator[ManifestRow]:
    """Fail if too many tar files are damaged: how many images are lost with one, nobody knows.

    Raises:
        TooManyInvalidImages: more than the allowed share are.
    """

    def check() -> None:
        damaged = tally.repairs[_DAMAGED]
        if damaged > options.max_invalid * tar_files:
            raise TooManyInvalidImages(
                f"{damaged} of {tar_files} tar files are damaged, more than the allowed share of "
                f"{options.max_invalid:g}, and the log names them; repair them, raise --max-invalid, or pass "
                "--skip-invalid to use what can be read"
            )

    for row in rows:
        yield row
        check()
    check()


def _list_labels(
    reader: _TarReader, tar_uris: Sequence[str], options: SourceOptions
) -> tuple[str, ...]:
    """The labels of all annotations, sorted: a pass of its own over the tar files."""
    return collect_labels(
        (o.result() for o in choose_mapper(options)(reader.list_labels, tar_uris, READER_THREADS)),
        f"{uris.redact_uri(tar_uris[0])} and the other tar files hold no object in members "
        f".{reader.layout.objects_key}: check --objects-key, or leave it out if nothing is annotated",
    )


class _TarReader:
    """Reads the images of one tar file at a time; used by several threads."""

    def __init__(self, layout: WebDatasetLayout, options: SourceOptions) -> None:
        self.layout = layout
        self.labels: frozenset[str] = frozenset()
        self._options = options

    def list_labels(self, uri: str) -> ListedLabels:
        """The labels of a tar file's annotations."""
        listed = ListedLabels()
        with storage.open_file(uri, BLOCK_BYTES) as file:
            index = TarIndex(file, uris.redact_uri(uri))
            for sample in _iterate_samples(index):
                try:
                    listed.add(self._read_objects(index, sample, uris.redact_uri(uri)))
                except UnreadableDataset as error:
                    listed.take_fault(str(error))
        if index.fault is not None:
            listed.take_fault(index.fault)
        return listed

    def read(self, uri: str) -> list[ReadImage | Repair | Exception]:
        """The images of a tar file, each as its row or its error, and what is wrong with the file itself.

        Raises:
            UnreadableDataset: the file is compressed, or holds no image.
            StorageError: it cannot be read.
        """
        images: list[ReadImage | Repair | Exception] = []
        where = uris.redact_uri(uri)
        etag = storage.get_etag(uri)
        with storage.open_file(uri, BLOCK_BYTES) as file:
            index = TarIndex(file, where)
            for sample in _iterate_samples(index):
                try:
                    images.append(self._read_sample(index, sample, uri, etag))
                except IMAGE_FAULTS as error:
                    images.append(error)
        links = [Repair(*_LINK, f"{where}: {name}", is_loss=True) for name in index.links]
        if index.fault is not None:
            if images and self.layout.objects_key is not None:
                images[-1] = UnreadableDataset(
                    f"{index.fault}, so its last sample may be incomplete"
                )
            return [*links, *images, Repair(*_DAMAGED, index.fault, is_loss=True)]
        if not images:
            raise UnreadableDataset(
                f"{where} holds no files with the endings {', '.join(self.layout.image_keys)}"
            )
        ending = [] if index.has_end_mark else [Repair(*_NO_END, where)]
        return [*links, *images, *ending]

    def _read_sample(
        self, index: TarIndex, sample: _Sample, uri: str, etag: str | None
    ) -> ReadImage:
        endings = [ending for ending in self.layout.image_keys if ending in sample.members]
        place = f"{uris.redact_uri(uri)}: {sample.key}"
        if not endings:
            raise UnreadableDataset(
                f"{place} has no image, only {', '.join(f'.{ending}' for ending in sample.members)}"
            )
        image = sample.members[endings[0]]
        objects = self._read_objects(index, sample, uris.redact_uri(uri))

        def read_header() -> ImageHeader:
            return _read_header(index, image, f"{place}.{endings[0]}")

        image_id = sample.key
        if self.layout.prefix_ids:
            image_id = f"{uri.rpartition('/')[2].removesuffix('.tar')}/{sample.key}"
        member = Member(image.offset, image.length, image.checksum, etag=etag)
        contained = ContainedImage(image_id, uri, member, place, read_header, objects)
        read = build_contained_row(
            contained, self._options, self.labels, is_relative=self.layout.fields.is_relative
        )
        others = [
            Repair("image", "of a sample with several: left out", f"{place}.{ending}", is_loss=True)
            for ending in endings[1:]
        ]
        return ReadImage(read.row, [*others, *read.repairs])

    def _read_objects(
        self, index: TarIndex, sample: _Sample, where: str
    ) -> tuple[AnnotatedObject, ...] | None:
        """The objects of a sample; None if its dataset or the sample has no annotation."""
        ending = self.layout.objects_key
        member = sample.members.get(ending) if ending is not None else None
        if member is None:
            return None
        place = f"{where}: {sample.key}.{ending}"
        if member.length > _LARGEST_OBJECTS:
            raise UnreadableDataset(
                f"{place} has {member.length} bytes, too many for an annotation"
            )
        try:
            content = parse_json(index.read_span(member.offset, member.length))
        except InvalidJson as error:
            raise UnreadableDataset(f"{place} is not well-formed JSON: {error}") from error
        if isinstance(content, dict):
            content = next((content[name] for name in _PLACES if name in content), content)
        return parse_objects(content, self.layout.fields, self.layout.classes, place)


def _iterate_samples(index: TarIndex) -> Iterator[_Sample]:
    """The samples of a tar file: neighbours of one key."""

    def split(member: TarMember) -> tuple[str, str]:
        match = _KEY.fullmatch(member.name.removeprefix("./"))
        return (match[1], match[2].lower()) if match else (member.name, "")

    for key, members in groupby(index.iterate(), lambda member: split(member)[0]):
        yield _Sample(key, {split(member)[1]: member for member in members})


def _read_header(index: TarIndex, image: TarMember, where: str) -> ImageHeader:
    """The header of an image in a tar file, and as little of the image as possible."""
    for size in HEADER_BYTES:
        if size < image.length:
            with contextlib.suppress(UnreadableImage):
                return imaging.read_header(index.read_span(image.offset, size))
    size = min(image.length, imaging.MAX_FILE_BYTES)
    return parse_image_header(index.read_span(image.offset, size), where)
