"""Checks that all sources share: boxes against the image, paths against the dataset, sizes."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline import geometry, imaging, storage, uris
from pipeline.errors import (
    AccessDenied,
    InvalidBox,
    MissingObject,
    StorageError,
    UnreadableDataset,
    UnreadableImage,
)
from pipeline.manifests import AnnotatedObject

HEADER_BYTES = 64 * 1024
"""Bytes of an image's start that hold its header, unless large metadata precede it."""

LARGEST_SIDE = 2**31
"""An annotated width or height from this value on is invalid and counts as missing."""


def clip_objects(
    objects: Sequence[AnnotatedObject],
    width: int,
    height: int,
    where: str,
    classes: frozenset[str] | None = None,
) -> tuple[tuple[AnnotatedObject, ...], int]:
    """Clip objects to their image; also return how many were dropped because their box has no area.

    Args:
        objects: the annotated objects, with half-open boxes in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.
        where: the file that errors name.
        classes: the allowed labels; None allows any.

    Raises:
        InvalidBox: a box is inverted, not finite, or wholly outside the image.
        UnreadableDataset: a label is not among `classes`.
    """
    for index, item in enumerate(objects):
        if classes is not None and item.label not in classes:
            raise UnreadableDataset(
                f"{where}: object {index} is of class {item.label!r}, "
                f"which is not among the classes {', '.join(sorted(classes))}"
            )
        fault = _describe_fault(item, width, height)
        if fault:
            corners = f"x1={item.x1:g} y1={item.y1:g} x2={item.x2:g} y2={item.y2:g}"
            raise InvalidBox(
                f"{where}: the box of object {index} ({item.label}) {fault}: {corners}, "
                f"counted from 0 and half open, in an image of {width}x{height}"
            )
    annotated = np.array([[o.x1, o.y1, o.x2, o.y2] for o in objects], np.float64).reshape(-1, 4)
    clipped = geometry.clip(annotated, width, height).astype(np.float32)
    nonempty = tuple(
        replace(item, x1=x1, y1=y1, x2=x2, y2=y2)
        for item, (x1, y1, x2, y2), has_area in zip(
            objects, clipped.tolist(), geometry.is_nonempty(clipped), strict=True
        )
        if has_area
    )
    return nonempty, len(objects) - len(nonempty)


def _describe_fault(item: AnnotatedObject, width: int, height: int) -> str | None:
    if not all(math.isfinite(corner) for corner in (item.x1, item.y1, item.x2, item.y2)):
        return "is not finite"
    if item.x2 < item.x1 or item.y2 < item.y1:
        return "is inverted"
    is_empty = item.x1 == item.x2 or item.y1 == item.y2  # dropped later, wherever it is
    is_outside = item.x2 <= 0 or item.y2 <= 0 or item.x1 >= width or item.y1 >= height
    return "is wholly outside" if is_outside and not is_empty else None


def extends_beyond(objects: Sequence[AnnotatedObject], width: int, height: int) -> bool:
    """Whether a box ends right of or below the image; if so, the annotated image size may be wrong."""
    return any(item.x2 > width or item.y2 > height for item in objects)


def check_inside(path: str, where: str) -> None:
    """Reject a path in an annotation that leaves the folder it is relative to.

    Raises:
        UnreadableDataset: the path is absolute, a URI, or contains `..`.
    """
    plain = path.replace("\\", "/")
    has_drive = len(plain) > 1 and plain[1] == ":"
    if plain.startswith("/") or has_drive or "://" in plain or "::" in plain:
        raise UnreadableDataset(f"{where} names {path!r}, which leaves the dataset's folder")
    if ".." in plain.split("/") or posixpath.normpath(plain) == ".":
        raise UnreadableDataset(f"{where} names {path!r}, which leaves the dataset's folder")


def read_image_size(uri: str) -> tuple[int, int]:
    """Read the width and height of an image from its header, and as little of the file as possible.

    Raises:
        UnreadableDataset: the file is not an image.
        StorageError: the file cannot be read.
    """
    try:
        try:
            start = storage.read_start(uri, HEADER_BYTES)
            return imaging.read_size(start)
        except (MissingObject, AccessDenied):
            raise
        except UnreadableImage:
            if len(start) < HEADER_BYTES:
                raise
        except StorageError:
            pass  # some stores reject a range of an empty object; reading all of it shows
        return imaging.read_size(storage.read(uri))
    except UnreadableImage as error:
        raise UnreadableDataset(f"{uris.redact_uri(uri)}: {error}") from error
