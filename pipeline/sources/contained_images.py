"""The manifest row of an image that lies inside another file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.image_members import Member
from pipeline.imaging import ImageHeader
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.checking import check_labels, clip_objects
from pipeline.sources.dataset import ReadImage
from pipeline.sources.options import SourceOptions
from pipeline.sources.relative_boxes import scale_objects
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Repair


@dataclass(frozen=True)
class ContainedImage:
    """What a source knows of one image before its header is read."""

    image_id: str
    uri: str
    """Of the file that holds it."""
    member: Member
    where: str
    """The file and the place in it, for errors."""
    read_header: Callable[[], ImageHeader]
    objects: tuple[AnnotatedObject, ...] | None = None
    """None if the image is not annotated."""
    stated_size: tuple[int, int] = (0, 0)
    """Width and height as the dataset states them; 0 if it does not."""


def build_contained_row(
    image: ContainedImage,
    options: SourceOptions,
    labels: frozenset[str] = frozenset(),
    *,
    is_relative: bool = False,
) -> ReadImage:
    """Settle the image's size, and clip its objects to it.

    Args:
        image: the image, with boxes in pixels or in shares of its sides.
        options: whether to check every size, and which orientation rows refer to.
        labels: the dataset's classes.
        is_relative: whether boxes are shares of the sides.

    Raises:
        UnreadableDataset: the image is unreadable, of another size than stated, or an object is of no class.
        StorageError: the image cannot be read.
    """
    in_pixels = () if is_relative else image.objects or ()
    settled = settle_size(
        image.uri,
        image.stated_size if min(image.stated_size) > 0 else (0, 0),
        in_pixels,
        options,
        image.where,
        read_header=image.read_header,
    )
    objects: tuple[AnnotatedObject, ...] | None = None
    clips: list[Repair] = []
    if image.objects is not None:
        placed = settled.objects
        if is_relative:
            placed = scale_objects(image.objects, settled.width, settled.height)
        check_labels(placed, labels, image.where)
        objects, clips = clip_objects(placed, settled.width, settled.height, image.where)
    row = ManifestRow(
        image.image_id, image.uri, settled.width, settled.height, objects, member=image.member
    )
    return ReadImage(row, [*settled.repairs, *clips])
