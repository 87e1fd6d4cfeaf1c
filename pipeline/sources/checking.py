"""Checks that all sources share: boxes against the image, paths against the dataset, sizes."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline import geometry, imaging, storage
from pipeline.errors import InvalidBox, StorageError, UnreadableDataset, UnreadableImage
from pipeline.manifests import AnnotatedObject

HEADER_BYTES = 64 * 1024
"""An image's start that holds the header, unless large metadata come before it."""

LARGEST_SIDE = 2**31
"""A stated side from here on is no side, and counts as not stated."""


def checked_objects(
    objects: Sequence[AnnotatedObject],
    width: int,
    height: int,
    where: str,
    classes: frozenset[str] | None = None,
) -> tuple[tuple[AnnotatedObject, ...], int]:
    """Objects cut to their image, and how many were dropped because their box has no area.

    Args:
        objects: as annotated, boxes already half open in pixels.
        width: of the image.
        height: of the image.
        where: the file that an error names.
        classes: the labels there may be; None for any.

    Raises:
        InvalidBox: a box that is inverted, not finite, or wholly outside the image.
        UnreadableDataset: a label that is not among `classes`.
    """
    for index, item in enumerate(objects):
        if classes is not None and item.label not in classes:
            raise UnreadableDataset(
                f"{where}: object {index} is of class {item.label!r}, "
                f"which is not among the classes {', '.join(sorted(classes))}"
            )
        fault = _fault(item, width, height)
        if fault:
            corners = f"x1={item.x1:g} y1={item.y1:g} x2={item.x2:g} y2={item.y2:g}"
            raise InvalidBox(
                f"{where}: the box of object {index} ({item.label}) {fault}: {corners}, "
                f"counted from 0 and half open, in an image of {width}x{height}"
            )
    annotated = np.array([[o.x1, o.y1, o.x2, o.y2] for o in objects], np.float64).reshape(-1, 4)
    cut = geometry.clip(annotated, width, height).astype(np.float32)
    kept = tuple(
        replace(item, x1=x1, y1=y1, x2=x2, y2=y2)
        for item, (x1, y1, x2, y2), whole in zip(
            objects, cut.tolist(), geometry.nonempty(cut), strict=True
        )
        if whole
    )
    return kept, len(objects) - len(kept)


def _fault(item: AnnotatedObject, width: int, height: int) -> str | None:
    if not all(math.isfinite(corner) for corner in (item.x1, item.y1, item.x2, item.y2)):
        return "is not finite"
    if item.x2 < item.x1 or item.y2 < item.y1:
        return "is inverted"
    empty = item.x1 == item.x2 or item.y1 == item.y2  # dropped, wherever it lies
    outside = item.x2 <= 0 or item.y2 <= 0 or item.x1 >= width or item.y1 >= height
    return "lies wholly outside" if outside and not empty else None


def reaches_over(objects: Sequence[AnnotatedObject], width: int, height: int) -> bool:
    """Whether a box ends right of or below the image: then the stated size may be wrong."""
    return any(item.x2 > width or item.y2 > height for item in objects)


def check_inside(path: str, where: str) -> None:
    """Refuse a path from an annotation that leaves the folder it is relative to.

    Raises:
        UnreadableDataset: an absolute path, another store's URI, or one with `..`.
    """
    plain = path.replace("\\", "/")
    drive = len(plain) > 1 and plain[1] == ":"
    if plain.startswith("/") or drive or "://" in plain or "::" in plain:
        raise UnreadableDataset(f"{where} names {path!r}, which leaves the dataset's folder")
    if ".." in plain.split("/") or posixpath.normpath(plain) == ".":
        raise UnreadableDataset(f"{where} names {path!r}, which leaves the dataset's folder")


def image_size(uri: str) -> tuple[int, int]:
    """Width and height of an image from its header, reading as little of the file as will do.

    Raises:
        UnreadableDataset: it is no image.
        StorageError: it cannot be read.
    """
    try:
        try:
            start = storage.read_start(uri, HEADER_BYTES)
            return imaging.size(start)
        except (storage.MissingObject, storage.AccessDenied):
            raise
        except UnreadableImage:
            if len(start) < HEADER_BYTES:
                raise
        except StorageError:
            pass  # some stores refuse a range of an empty object; the whole read tells
        return imaging.size(storage.read(uri))
    except UnreadableImage as error:
        raise UnreadableDataset(f"{storage.shown(uri)}: {error}") from error
