"""All hierarchies of a picture: each colour space, each scale, each similarity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.proposals import colour, features
from pipeline.proposals.edges import sorted_edges
from pipeline.proposals.grouping import group, measures
from pipeline.proposals.regions import adjacent_pairs, bounding_boxes
from pipeline.proposals.segmentation import segment
from pipeline.proposals.smoothing import smooth
from pipeline.proposals.strategy import Strategy


@dataclass(frozen=True)
class Segmentation:
    """One initial segmentation with the hierarchies that were built on it."""

    space: str
    k: float
    labels: NDArray[np.int32]
    """Region of each pixel, `(H, W)`."""
    boxes: NDArray[np.int32]
    """Boxes of the regions, `(R, 4)`."""
    merged: tuple[NDArray[np.int32], ...]
    """Per similarity, which two nodes each merge joined, `(R - 1, 2)`; merge m made node R + m."""
    merged_boxes: tuple[NDArray[np.int32], ...]
    """Per similarity, the boxes of the merges, `(R - 1, 4)`."""


@dataclass(frozen=True)
class _Space:
    """What all segmentations of a picture in one colour space share."""

    planes: NDArray[np.uint8]
    edges: NDArray[np.int32]
    starts: NDArray[np.int32]
    colour_codes: NDArray[np.uint32] | None
    texture_codes: NDArray[np.uint32] | None


def segmentations(image: NDArray[np.uint8], strategy: Strategy) -> Iterator[Segmentation]:
    """Segment and group a picture uint8 `(H, W, 3)` by every combination of the strategy."""
    used = set("".join(strategy.similarities))
    for name in strategy.colour_spaces:
        space = _prepare(image, name, strategy.sigma, "C" in used, "T" in used)
        for k in strategy.ks:
            yield _segment_and_group(space, name, k, strategy)


def _prepare(
    image: NDArray[np.uint8], name: str, sigma: float, with_colour: bool, with_texture: bool
) -> _Space:
    planes = colour.planes(image, name)
    edges, starts = sorted_edges(smooth(planes, sigma), colour.repeats(name))
    return _Space(
        planes,
        edges,
        starts,
        features.colour_codes(planes) if with_colour else None,
        features.texture_codes(planes) if with_texture else None,
    )


def _segment_and_group(space: _Space, name: str, k: float, strategy: Strategy) -> Segmentation:
    channels, height, width = space.planes.shape
    labels, sizes = segment(space.edges, space.starts, height, width, k, strategy.min_size_for(k))
    boxes = bounding_boxes(labels, len(sizes))
    pairs = adjacent_pairs(labels, len(sizes))
    colours = textures = np.empty((len(sizes), 0), np.float32)
    if space.colour_codes is not None:
        colours = features.colour_histograms(labels, sizes, space.colour_codes, channels)
    if space.texture_codes is not None:
        textures = features.texture_histograms(labels, sizes, space.texture_codes)
    pair_colours = features.pair_intersections(colours, pairs)
    pair_textures = features.pair_intersections(textures, pairs)
    made = [
        group(
            sizes, boxes, colours, textures, pairs, pair_colours, pair_textures,
            measures(similarity), height * width,
        )
        for similarity in strategy.similarities
    ]  # fmt: skip
    return Segmentation(
        name, k, labels, boxes, tuple(m for m, _ in made), tuple(b for _, b in made)
    )
