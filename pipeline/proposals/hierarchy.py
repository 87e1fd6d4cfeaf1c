"""All hierarchies of an image: each colour space, each scale, each similarity."""

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
from pipeline.proposals.workspace import Workspace


@dataclass(frozen=True)
class Segmentation:
    """One initial segmentation with the hierarchies that were built on it."""

    space: str
    k: float
    labels: NDArray[np.int32]
    """Region of each pixel, `(H, W)`; holds until the next segmentation is asked for."""
    boxes: NDArray[np.int32]
    """Boxes of the regions, `(R, 4)`."""
    merged: tuple[NDArray[np.int32], ...]
    """Per similarity, which two nodes each merge joined, `(R - 1, 2)`; merge m made node R + m."""
    merged_boxes: tuple[NDArray[np.int32], ...]
    """Per similarity, the boxes of the merges, `(R - 1, 4)`."""


@dataclass(frozen=True)
class _Space:
    """What all segmentations of an image in one colour space share."""

    planes: NDArray[np.uint8]
    edges: NDArray[np.int64]
    colour_codes: NDArray[np.uint32] | None
    texture_codes: NDArray[np.uint32] | None


def segmentations(
    image: NDArray[np.uint8], strategy: Strategy, workspace: Workspace
) -> Iterator[Segmentation]:
    """Segment and group an image uint8 `(H, W, 3)` by every combination of the strategy."""
    used = set("".join(strategy.similarities))
    for name in strategy.colour_spaces:
        space = _prepare(image, name, strategy.sigma, used, workspace)
        for k in strategy.ks:
            yield _segment_and_group(space, name, k, strategy, workspace)


def _prepare(
    image: NDArray[np.uint8], name: str, sigma: float, used: set[str], workspace: Workspace
) -> _Space:
    height, width = image.shape[:2]
    planes = workspace.array("planes", (colour.channels(name), height, width), np.uint8)
    colour.convert(image, name, planes)
    # Smoothed planes are needed until the edges are weighed, before the sort fills this buffer.
    smoothed = workspace.array("edges halfway", planes.shape, np.float32)
    smooth(planes, sigma, smoothed)
    edges = sorted_edges(smoothed, colour.repeats(name), workspace)
    colour_codes = texture_codes = None
    if "C" in used:
        colour_codes = workspace.array("colour codes", (height, width), np.uint32)
        features.colour_codes(planes, colour_codes)
    if "T" in used:
        texture_codes = workspace.array("texture codes", planes.shape, np.uint32)
        features.texture_codes(planes, texture_codes)
    return _Space(planes, edges, colour_codes, texture_codes)


def _segment_and_group(
    space: _Space, name: str, k: float, strategy: Strategy, workspace: Workspace
) -> Segmentation:
    channels, height, width = space.planes.shape
    labels, region_sizes = segment(
        space.edges, height, width, k, strategy.min_size_for(k), workspace
    )
    regions = len(region_sizes)
    nodes = 2 * regions - 1
    sizes = np.empty(nodes, np.int32)
    boxes = np.empty((nodes, 4), np.int32)
    sizes[:regions] = region_sizes
    bounding_boxes(labels, boxes[:regions])
    pairs = adjacent_pairs(labels, regions)
    colours = textures = np.empty((nodes, 0), np.int32)
    if space.colour_codes is not None:
        columns = features.COLOUR_BINS * channels
        colours = workspace.array("colours", (nodes, columns), np.int32)
        features.colour_histograms(labels, region_sizes, space.colour_codes, channels, colours)
    if space.texture_codes is not None:
        columns = features.ORIENTATIONS * features.TEXTURE_BINS * channels
        textures = workspace.array("textures", (nodes, columns), np.int32)
        features.texture_histograms(labels, region_sizes, space.texture_codes, textures)
    pair_colours = features.pair_intersections(colours, pairs)
    pair_textures = features.pair_intersections(textures, pairs)
    merged, merged_boxes = [], []
    for similarity in strategy.similarities:
        merged.append(
            group(
                sizes, boxes, colours, textures, pairs, pair_colours, pair_textures,
                measures(similarity), height * width,
            )
        )  # fmt: skip
        merged_boxes.append(boxes[regions:].copy())
    return Segmentation(name, k, labels, boxes[:regions], tuple(merged), tuple(merged_boxes))
