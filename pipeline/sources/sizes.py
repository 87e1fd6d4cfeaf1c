"""The size of an image, from its annotation and its header; boxes are turned with the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline import geometry, image_formats, imaging, storage, uris
from pipeline.errors import (
    AccessDenied,
    MissingObject,
    StorageError,
    UnreadableDataset,
    UnreadableImage,
)
from pipeline.imaging import ImageHeader
from pipeline.manifests import AnnotatedObject
from pipeline.sources.checking import extends_beyond, stack_boxes
from pipeline.sources.options import SourceOptions
from pipeline.sources.tally import Repair
from pipeline.stated_sizes import describe_mismatch, sizes_agree

HEADER_BYTES = (64 * 1024, 4 * 1024 * 1024)
"""Bytes of an image's start to try: the header is in the first, unless large metadata precede it."""
_CLEARLY_BEYOND = 1.1
"""Boxes that end outside the stated size by more than a tenth were not drawn in an image of that size."""
_ASSUMED = "with an EXIF rotation that its size does not show: boxes taken as displayed"


@dataclass(frozen=True)
class Settled:
    """The size of an image that its row holds, and its objects in this image."""

    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]
    repairs: tuple[Repair, ...] = ()


def settle_size(
    uri: str,
    stated: tuple[int, int],
    objects: Sequence[AnnotatedObject],
    options: SourceOptions,
    where: str,
    *,
    read_header: Callable[[], ImageHeader] | None = None,
) -> Settled:
    """Decide an image's size, from its header where the annotation alone does not suffice.

    Args:
        uri: the image.
        stated: width and height in the annotation; 0 if missing.
        objects: with boxes in pixels, not yet clipped.
        options: whether to check every size, and which orientation rows refer to.
        where: the annotation that errors name.
        read_header: reads the header of an image that is no file of its own; errors as for
            `read_image_header`.

    Raises:
        UnreadableDataset: the image is unreadable, or has another size than the one its boxes refer to.
        StorageError: the image cannot be read.
    """
    is_stated = min(stated) > 0
    is_beyond = is_stated and extends_beyond(objects, *stated)
    is_absurd = stated[0] * stated[1] > imaging.MAX_PIXELS  # no such image could be decoded
    is_checked = is_beyond or is_absurd or options.check_sizes or options.exif == "apply"
    if is_stated and not is_checked:
        return Settled(*stated, tuple(objects))
    header = read_image_header(uri) if read_header is None else read_header()
    turned = options.exif == "apply"
    stored = (header.width, header.height)
    actual = header.displayed_size if turned else stored
    if not is_stated or sizes_agree(stated, actual):
        is_assumed = (
            turned
            and header.orientation > 1
            and len(objects) > 0
            and (not is_stated or sizes_agree(stated, stored))
        )
        repairs = (Repair("image", _ASSUMED, where),) if is_assumed else ()
        return Settled(*actual, tuple(objects), repairs)
    if turned and sizes_agree(stated, stored):
        turned_objects = _turn_objects(objects, header)
        return Settled(*actual, turned_objects, (Repair("image", "turned with its boxes", where),))
    largest = (_CLEARLY_BEYOND * stated[0], _CLEARLY_BEYOND * stated[1])
    is_disproved = extends_beyond(objects, *largest) and not extends_beyond(objects, *actual)
    if objects and not is_disproved:
        raise UnreadableDataset(f"{where}: {describe_mismatch(stated, actual, turned=turned)}")
    repair = Repair("image", "with a wrong size in its annotation: the header's is used", where)
    return Settled(*actual, tuple(objects), (repair,))


def _turn_objects(
    objects: Sequence[AnnotatedObject], header: ImageHeader
) -> tuple[AnnotatedObject, ...]:
    boxes = geometry.turn(stack_boxes(objects), header.orientation, header.width, header.height)
    return tuple(
        replace(item, x1=x1, y1=y1, x2=x2, y2=y2)
        for item, (x1, y1, x2, y2) in zip(objects, boxes.tolist(), strict=True)
    )


def parse_image_header(data: bytes, where: str) -> ImageHeader:
    """The header of an encoded image, of which `data` holds at least the start.

    Raises:
        UnreadableDataset: it is no image; the message names `where`.
    """
    try:
        return imaging.read_header(data)
    except UnreadableImage as error:
        raise UnreadableDataset(f"{where}: {error}") from error


def read_image_header(uri: str) -> ImageHeader:
    """Read an image's header, and as little of the file as possible.

    Raises:
        UnreadableDataset: the file is not an image.
        StorageError: the file cannot be read.
    """
    try:
        for size in HEADER_BYTES:
            try:
                start = storage.read_start(uri, size)
                return imaging.read_header(start)
            except (MissingObject, AccessDenied):
                raise
            except UnreadableImage:
                # All of a file is read only if it may be an image.
                if len(start) < size or not image_formats.may_be_image(start):
                    raise
            except StorageError:
                break  # some stores reject a range of an empty object; reading all of it shows
        return imaging.read_header(storage.read(uri, imaging.MAX_FILE_BYTES))
    except UnreadableImage as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)}: {error}") from error
