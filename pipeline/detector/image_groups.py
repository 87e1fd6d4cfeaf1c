"""Which images go through the trunk together: those whose resized shapes are equal, without padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.detector.pyramid import LevelRois, Size

ShapedBatch = tuple[Size, list[LevelRois]]
"""One resized shape, and the RoIs of each image of the batch."""


def form_batches(rois_by_level: Iterable[LevelRois], max_images: int) -> Iterator[ShapedBatch]:
    """Yield batches of one shape and of at most `max_images` images, in the order of the images."""
    by_shape: dict[Size, list[LevelRois]] = {}
    for at_level in rois_by_level:
        by_shape.setdefault(at_level.shape, []).append(at_level)
    for shape, with_shape in by_shape.items():
        for start in range(0, len(with_shape), max_images):
            yield shape, with_shape[start : start + max_images]


def form_groups(rois_by_level: Iterable[LevelRois], max_images: int) -> Iterator[list[ShapedBatch]]:
    """Yield the batches of at most `max_images` images that use the same shapes, all scales together."""
    by_image: dict[int, list[LevelRois]] = {}
    for at_level in rois_by_level:
        by_image.setdefault(at_level.image_index, []).append(at_level)
    by_shapes: dict[tuple[Size, ...], list[list[LevelRois]]] = {}
    for of_image in by_image.values():
        shapes = tuple(at_level.shape for at_level in of_image)
        by_shapes.setdefault(shapes, []).append(of_image)
    for alike in by_shapes.values():
        for start in range(0, len(alike), max_images):
            chosen = alike[start : start + max_images]
            together = [at_level for of_image in chosen for at_level in of_image]
            yield list(form_batches(together, max_images))
