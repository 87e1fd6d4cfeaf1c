"""All hierarchies of an image: one for each colour space, scale and similarity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.proposals import colour, features
from pipeline.proposals.edges import sort_edges
from pipeline.proposals.grouping import encode_measures, group_regions
from pipeline.proposals.regions import fill_bounding_boxes, find_adjacent_pairs
from pipeline.proposals.segmentation import segment_image
from pipeline.proposals.smoothing import smooth_planes
from pipeline.proposals.strategy import Strategy
from pipeline.proposals.workspace import Workspace


@dataclass(frozen=True)
class Segmentation:
    """One initial segmentation with the hierarchies built on it."""

    space: str
    k: float
    labels: NDArray[np.int32]
    """Region of each pixel, `(H, W)`; valid until the iterator yields the next segmentation."""
    boxes: NDArray[np.int32]
    """Boxes of the regions, `(R, 4)`."""
    merges: tuple[NDArray[np.int32], ...]
    """Per similarity, the two nodes that each merge joined, `(R - 1, 2)`; merge m made node R + m."""
    merged_boxes: tuple[NDArray[np.int32], ...]
    """Per similarity, the boxes of the merges, `(R - 1, 4)`."""
    merged_sizes: tuple[NDArray[np.int32], ...]
    """Per similarity, the pixels of the merges, `(R - 1,)`."""
    similarities: tuple[NDArray[np.float32], ...]
    """Per similarity, how similar the two nodes of each merge are, `(R - 1,)`: the sum of its measures."""
    sizes: NDArray[np.int32]
    """Pixels of the regions, `(R,)`."""
    measures: tuple[int, ...]
    """Per similarity, the number of its measures: the largest possible similarity."""


@dataclass(frozen=True)
class _PreparedSpace:
    """One colour space of an image: the arrays that all its segmentations share."""

    planes: NDArray[np.uint8]
    edges: NDArray[np.int64]
    colour_codes: NDArray[np.uint32] | None
    texture_codes: NDArray[np.uint32] | None


def build_hierarchies(
    image: NDArray[np.uint8], strategy: Strategy, workspace: Workspace
) -> Iterator[Segmentation]:
    """Segment and group an image uint8 `(H, W, 3)` with every combination of the strategy."""
    measures = set("".join(strategy.similarities))
    for name in strategy.colour_spaces:
        space = _prepare_space(image, name, strategy.sigma, measures, workspace)
        for k in strategy.ks:
            yield _segment_and_group(space, name, k, strategy, workspace)


def _prepare_space(
    image: NDArray[np.uint8], name: str, sigma: float, measures: set[str], workspace: Workspace
) -> _PreparedSpace:
    height, width = image.shape[:2]
    planes = workspace.take_array("planes", (colour.count_channels(name), height, width), np.uint8)
    colour.convert_colours(image, name, planes)
    # The smoothed planes are needed only until the edges are weighed, before the sort fills this buffer.

    smoothed = workspace.take_array("edges halfway", planes.shape, np.float32)
    smooth_planes(planes, sigma, smoothed)
    edges = sort_edges(smoothed, colour.count_repeats(name), workspace)
    colour_codes = texture_codes = None
    if "C" in measures:
        colour_codes = workspace.take_array("colour codes", (height, width), np.uint32)
        features.encode_colours(planes, colour_codes)
    if "T" in measures:
        texture_codes = workspace.take_array("texture codes", planes.shape, np.uint32)
        features.encode_textures(planes, texture_codes)
    return _PreparedSpace(planes, edges, colour_codes, texture_codes)


def _segment_and_group(
    space: _PreparedSpace, name: str, k: float, strategy: Strategy, workspace: Workspace
) -> Segmentation:
    channels, height, width = space.planes.shape
    labels, region_sizes = segment_image(
        space.edges, height, width, k, strategy.get_min_size(k), workspace
    )
    regions = len(region_sizes)
    nodes = 2 * regions - 1
    sizes = np.empty(nodes, np.int32)
    boxes = np.empty((nodes, 4), np.int32)
    sizes[:regions] = region_sizes
    fill_bounding_boxes(labels, boxes[:regions])
    pairs = find_adjacent_pairs(labels, regions)
    colours = textures = np.empty((nodes, 0), np.int32)
    if space.colour_codes is not None:
        columns = features.COLOUR_BINS * channels
        colours = workspace.take_array("colours", (nodes, columns), np.int32)
        features.build_colour_histograms(
            labels, region_sizes, space.colour_codes, channels, colours
        )
    if space.texture_codes is not None:
        columns = features.ORIENTATIONS * features.TEXTURE_BINS * channels
        textures = workspace.take_array("textures", (nodes, columns), np.int32)
        features.build_texture_histograms(labels, region_sizes, space.texture_codes, textures)
    pair_colours = features.intersect_pairs(colours, pairs)
    pair_textures = features.intersect_pairs(textures, pairs)
    merges, similarities, merged_boxes, merged_sizes = [], [], [], []
    for similarity in strategy.similarities:
        joined, similar = group_regions(
            sizes, boxes, colours, textures, pairs, pair_colours, pair_textures,
            encode_measures(similarity), height * width,
        )  # fmt: skip
        merges.append(joined)
        similarities.append(similar)
        merged_boxes.append(boxes[regions:].copy())
        merged_sizes.append(sizes[regions:].copy())
    return Segmentation(
        name,
        k,
        labels,
        boxes[:regions],
        tuple(merges),
        tuple(merged_boxes),
        tuple(merged_sizes),
        tuple(similarities),
        region_sizes,
        tuple(len(similarity) for similarity in strategy.similarities),
    )
