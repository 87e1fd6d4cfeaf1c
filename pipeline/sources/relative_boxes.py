"""Objects whose boxes are stated as shares of the image's sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.imaging import ImageHeader
from pipeline.manifests import AnnotatedObject
from pipeline.sources.options import SourceOptions
from pipeline.sources.sizes import Settled, settle_size


def settle_relative(
    uri: str,
    objects: Sequence[AnnotatedObject],
    options: SourceOptions,
    where: str,
    *,
    read_header: Callable[[], ImageHeader] | None = None,
) -> Settled:
    """Read an image's size and give its objects boxes in pixels, not yet clipped.

    Args:
        uri: the image.
        objects: with boxes from 0 to 1.
        options: which orientation of the image the shares refer to.
        where: the annotation that errors name.
        read_header: as for `settle_size`.

    Raises:
        UnreadableDataset: the image is unreadable.
        StorageError: the image cannot be read.
    """
    settled = settle_size(uri, (0, 0), objects, options, where, read_header=read_header)
    return replace(settled, objects=scale_objects(objects, settled.width, settled.height))


def scale_objects(
    objects: Sequence[AnnotatedObject], width: float, height: float
) -> tuple[AnnotatedObject, ...]:
    """Objects with boxes from 0 to 1 as objects in pixels of an image of this size."""
    return tuple(
        replace(
            item, x1=item.x1 * width, y1=item.y1 * height, x2=item.x2 * width, y2=item.y2 * height
        )
        for item in objects
    )
