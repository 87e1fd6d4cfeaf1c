"""The features of a box from which its rank is learned: one row of numbers per box, free of the image's size.

Only arithmetic that every processor rounds alike (+ - * / and square roots), so that features are equal on
all machines.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit
from pipeline.proposals.box_agreement import count_agreement
from pipeline.proposals.feature_names import FEATURES
from pipeline.proposals.hierarchy import Segmentation
from pipeline.proposals.image_sums import (
    GRADIENT,
    SQUARES,
    VOTES,
    ImageSums,
)
from pipeline.proposals.node_evidence import BoxEvidence

LARGEST_SEGMENTS = 256
"""Straddling looks at this many of a segmentation's regions, the largest."""

_OWN = 5
_MOST_GRADIENT = 6.0 * 255.0  # per sample: two differences of three bytes


def compute_features(
    evidence: BoxEvidence,
    hierarchies: int,
    coarsest: Segmentation,
    sums: ImageSums,
    size: tuple[int, int],
) -> NDArray[np.float32]:
    """Compute the features of boxes: float32 `(N, F)`, one column for each of `FEATURES`.

    Args:
        evidence: the boxes.
        hierarchies: how many there are.
        coarsest: the segmentation with the fewest regions; its labels are not used.
        sums: integral images of the same image.
        size: height and width of the image in pixels.
    """
    boxes = evidence.boxes
    rows = np.empty((len(boxes), len(FEATURES)), np.float32)
    rows[:, :_OWN] = evidence.values
    agreement = np.empty((len(boxes), 2), np.float32)
    count_agreement(boxes, evidence.nodes, agreement)
    rows[:, _OWN : _OWN + 2] = agreement / np.float32(hierarchies)
    largest = np.argsort(-coarsest.sizes, kind="stable")[:LARGEST_SEGMENTS]
    straddling = np.empty(len(boxes), np.float32)
    _measure_straddling(boxes, coarsest.boxes[largest], coarsest.sizes[largest], straddling)
    _fill_features(
        boxes, straddling, sums.inside, sums.across, sums.down, sums.step, sums.segmentations,
        size[0], size[1], rows,
    )  # fmt: skip
    return rows


@njit(cache=True, nogil=True, error_model="numpy")
def _measure_straddling(boxes, segments, sizes, straddling):  # type: ignore[no-untyped-def]
    # Superpixel straddling (Alexe et al., PAMI 2012): what a box cuts off of segments that it should hold or
    # leave out as a whole. A segment's pixels count as spread evenly over its own box.
    count = len(segments)
    x1, y1, x2, y2, density = (
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )
    for s in range(count):
        x1[s], y1[s], x2[s], y2[s] = (
            segments[s, 0],
            segments[s, 1],
            segments[s, 2],
            segments[s, 3],
        )
        density[s] = np.float32(sizes[s]) / ((x2[s] - x1[s]) * (y2[s] - y1[s]))
    pixels = sizes.astype(np.float32)
    zero = np.float32(0)
    for i in range(len(boxes)):
        left, top = np.float32(boxes[i, 0]), np.float32(boxes[i, 1])
        right, bottom = np.float32(boxes[i, 2]), np.float32(boxes[i, 3])
        cut = np.int32(0)  # integers add up alike in any order
        for s in range(count):
            across = max(zero, min(right, x2[s]) - max(left, x1[s]))
            inside = across * max(zero, min(bottom, y2[s]) - max(top, y1[s])) * density[s]
            cut += np.int32(min(inside, pixels[s] - inside))
        straddling[i] = np.float32(cut) / ((right - left) * (bottom - top))


@njit(nogil=True, error_model="numpy")
def _sum_plane(inside, plane, x1, y1, x2, y2):  # type: ignore[no-untyped-def]
    return (
        np.float64(inside[y2, x2, plane])
        - np.float64(inside[y1, x2, plane])
        - np.float64(inside[y2, x1, plane])
        + np.float64(inside[y1, x1, plane])
    )


@njit(nogil=True, error_model="numpy")
def _share(count, total):  # type: ignore[no-untyped-def]
    return count / total if total > 0 else 0.0


@njit(nogil=True, error_model="numpy")
def _differ(first, first_area, second, second_area):  # type: ignore[no-untyped-def]
    # Distance of two mean colours, 0 to 1; 0 if one has no pixels.
    if first_area <= 0 or second_area <= 0:
        return 0.0
    total = 0.0
    for c in range(3):
        difference = first[c] / first_area - second[c] / second_area
        total += difference * difference
    return np.sqrt(total) / 442.0


@njit(nogil=True, error_model="numpy")
def _spread(sums, area):  # type: ignore[no-untyped-def]
    # Standard deviation of the colours, 0 to 1.
    if area <= 0:
        return 0.0
    variance = 256.0 * sums[SQUARES] / area
    for c in range(3):
        mean = sums[c] / area
        variance -= mean * mean
    return np.sqrt(max(0.0, variance)) / 442.0


@njit(nogil=True, error_model="numpy")
def _describe_shape(box, height, width, row):  # type: ignore[no-untyped-def]
    across, down = float(box[2] - box[0]), float(box[3] - box[1])
    row[0] = np.sqrt(across * down / (float(width) * height))
    row[1], row[2] = across / width, down / height
    row[3] = across / (across + down)
    row[4] = abs((box[0] + box[2]) / width - 1.0)
    row[5] = (box[1] + box[3]) / (2.0 * height)
    row[6] = int(box[0] == 0) + int(box[1] == 0) + int(box[2] == width) + int(box[3] == height)


@njit(nogil=True, error_model="numpy")
def _measure_alignment(across, down, most, x1, y1, x2, y2):  # type: ignore[no-untyped-def]
    # Mean over the four sides of the share of votes that run along them; the image's border has all.
    total = 0.0
    total += (across[y2, x1 - 1] - across[y1, x1 - 1]) / (most * (y2 - y1)) if x1 > 0 else 1.0
    is_inside = x2 < across.shape[1]
    total += (across[y2, x2 - 1] - across[y1, x2 - 1]) / (most * (y2 - y1)) if is_inside else 1.0
    total += (down[y1 - 1, x2] - down[y1 - 1, x1]) / (most * (x2 - x1)) if y1 > 0 else 1.0
    is_inside = y2 < down.shape[0]
    total += (down[y2 - 1, x2] - down[y2 - 1, x1]) / (most * (x2 - x1)) if is_inside else 1.0
    return total / 4.0


@njit(nogil=True, error_model="numpy")
def _compare_strips(inside, x1, y1, x2, y2, ox1, oy1, ox2, oy2):  # type: ignore[no-untyped-def]
    # Colour difference of the strip inside a side, (x1 y1 x2 y2), and the one outside; -1 at the border.
    area, outer_area = float((x2 - x1) * (y2 - y1)), float((ox2 - ox1) * (oy2 - oy1))
    if area <= 0 or outer_area <= 0:
        return -1.0
    total = 0.0
    for c in range(3):
        here = _sum_plane(inside, c, x1, y1, x2, y2) / area
        there = _sum_plane(inside, c, ox1, oy1, ox2, oy2) / outer_area
        total += (here - there) * (here - there)
    return np.sqrt(total) / 442.0


@njit(nogil=True, error_model="numpy")
def _contrast_sides(inside, grid, x1, y1, x2, y2, row):  # type: ignore[no-untyped-def]
    # The mean and the smallest colour contrast across the sides that are not on the image's border.
    height, width = grid
    tx, ty = max(1, (x2 - x1) // 8), max(1, (y2 - y1) // 8)
    left = _compare_strips(inside, x1, y1, x1 + tx, y2, max(0, x1 - tx), y1, x1, y2)
    right = _compare_strips(inside, x2 - tx, y1, x2, y2, x2, y1, min(width, x2 + tx), y2)
    top = _compare_strips(inside, x1, y1, x2, y1 + ty, x1, max(0, y1 - ty), x2, y1)
    bottom = _compare_strips(inside, x1, y2 - ty, x2, y2, x1, y2, x2, min(height, y2 + ty))
    total, count, least = 0.0, 0, 1.0
    for contrast in (left, right, top, bottom):
        if contrast >= 0:
            total += contrast
            count += 1
            least = min(least, contrast)
    row[0] = total / count if count else 0.0
    row[1] = least if count else 0.0


@njit(nogil=True, error_model="numpy")
def _describe_inside(sums, areas, most_votes, row):  # type: ignore[no-untyped-def]
    # Densities of votes and gradients, then colours, of the box, its core, its rim and its surround.
    for part in range(4):
        row[part] = _share(sums[part, VOTES], areas[part]) / most_votes
        row[4 + part] = _share(sums[part, GRADIENT], areas[part]) / _MOST_GRADIENT
    row[8] = _differ(sums[0], areas[0], sums[3], areas[3])
    row[9] = _differ(sums[1], areas[1], sums[3], areas[3])
    row[10] = _spread(sums[0], areas[0])
    row[11] = _spread(sums[3], areas[3])


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_features(  # type: ignore[no-untyped-def]
    boxes, straddling, inside, across, down, step, segmentations, height, width, rows
):
    grid = inside.shape[0] - 1, inside.shape[1] - 1
    sums, areas = np.empty((4, 6)), np.empty(4)
    for i in range(len(boxes)):
        box, row = boxes[i], rows[i, _OWN + 2 :]
        _describe_shape(box, height, width, row)
        # Samples inside the box; a box between two samples takes the next one.
        x1, y1 = min(-(-box[0] // step), grid[1] - 1), min(-(-box[1] // step), grid[0] - 1)
        x2, y2 = max(x1 + 1, -(-box[2] // step)), max(y1 + 1, -(-box[3] // step))
        w, h = x2 - x1, y2 - y1
        cx, cy, ox, oy = w // 4, h // 4, w // 4 + 1, h // 4 + 1
        ox1, oy1, ox2, oy2 = max(0, x1 - ox), max(0, y1 - oy), x2 + ox, y2 + oy
        ox2, oy2 = min(grid[1], ox2), min(grid[0], oy2)
        for p in range(6):
            sums[0, p] = _sum_plane(inside, p, x1, y1, x2, y2)
            sums[1, p] = _sum_plane(inside, p, x1 + cx, y1 + cy, x2 - cx, y2 - cy)
            sums[2, p] = sums[0, p] - sums[1, p]
            sums[3, p] = _sum_plane(inside, p, ox1, oy1, ox2, oy2) - sums[0, p]
        areas[0], areas[1] = float(w * h), float((w - 2 * cx) * (h - 2 * cy))
        areas[2] = areas[0] - areas[1]
        areas[3] = float((ox2 - ox1) * (oy2 - oy1)) - areas[0]
        row[7] = _measure_alignment(across, down, segmentations, x1, y1, x2, y2)
        row[8] = straddling[i]
        _contrast_sides(inside, grid, x1, y1, x2, y2, row[9:])
        _describe_inside(sums, areas, 2.0 * segmentations, row[11:])
