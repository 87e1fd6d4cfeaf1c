"""Selective search in plain, slow Python: the reference for the kernels' tests."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np


def convert_colour(image: np.ndarray, space: str) -> np.ndarray:
    """Convert an image `(H, W, 3)` to planes `(C, H, W)` on 0-255, not rounded, pixel by pixel."""
    pixels = [[_COLOUR[space](*map(float, pixel)) for pixel in row] for row in image]
    return np.moveaxis(np.array(pixels, dtype=float), 2, 0)


def _to_grey(r: float, g: float, b: float) -> float:
    r, g, b = r / 255, g / 255, b / 255
    return 255 * (0.298936021293775 * r + 0.587043074451121 * g + 0.114020904255103 * b)


def _to_shares(r: float, g: float, b: float) -> tuple[float, float, float]:
    r, g, b = r / 255, g / 255, b / 255
    total = r + g + b
    return (85.0, 85.0, 85.0) if total == 0 else tuple(255 * (c / total) for c in (r, g, b))


def _to_hsv(r: float, g: float, b: float) -> tuple[float, float, float]:
    """MATLAB's `rgb2hsv`, step by step: the last of equal channels decides the hue."""
    r, g, b = r / 255, g / 255, b / 255
    value = max(r, g, b)
    spread = value - min(r, g, b)
    if spread == 0:
        return 0.0, 0.0, 255 * value
    if b == value:
        hue = 4 + (r - g) / spread
    elif g == value:
        hue = 2 + (b - r) / spread
    else:
        hue = (g - b) / spread
    hue /= 6
    if hue < 0:
        hue += 1
    return 255 * hue, 255 * (spread / value), 255 * value


def _to_lab(r: float, g: float, b: float) -> tuple[float, float, float]:
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (r / 255, g / 255, b / 255)
    ]
    matrix = [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
    f = []
    for row in matrix:
        t = sum(m * v for m, v in zip(row, linear, strict=True)) / sum(row)
        f.append(t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116)
    lightness, a, b_ = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    return 2.55 * lightness, a + 128, b_ + 128


def _to_invariant(r: float, g: float, b: float) -> tuple[float, float]:
    energy = 0.06 * r + 0.63 * g + 0.27 * b
    if energy == 0:
        return 127.5, 127.5
    first, second = 0.30 * r + 0.04 * g - 0.35 * b, 0.34 * r - 0.60 * g + 0.17 * b
    return tuple(255 * (math.atan(e / energy) / math.pi + 0.5) for e in (first, second))


_COLOUR = {
    "RGB": lambda r, g, b: (r, g, b),
    "I": lambda r, g, b: (_to_grey(r, g, b),),
    "rgI": lambda r, g, b: (*_to_shares(r, g, b)[:2], _to_grey(r, g, b)),
    "HSV": _to_hsv,
    "Lab": _to_lab,
    "rgb": _to_shares,
    "C": _to_invariant,
    "H": lambda r, g, b: _to_hsv(r, g, b)[:1],
}


def correlate(plane: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Correlate a plane `(H, W)` with the outer product of two odd kernels, borders repeated."""
    radius = len(across) // 2
    padded = np.pad(plane.astype(float), radius, mode="edge")
    height, width = plane.shape
    out = np.zeros(plane.shape)
    for y in range(height):
        for x in range(width):
            window = padded[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
            out[y, x] = down @ window @ across
    return out


def build_bell(sigma: float, radius: int) -> np.ndarray:
    """Return a Gaussian at -radius ... radius, of sum 1."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def list_neighbours(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield every edge of the grid as pixel and neighbour, by row, direction and column."""
    for y in range(height):
        for dx, dy in ((1, 0), (-1, 1), (0, 1), (1, 1)):
            for x in range(width):
                if 0 <= x + dx < width and y + dy < height:
                    yield y * width + x, (y + dy) * width + x + dx


def truncate_weight(weight: np.float32) -> int:
    """Return the 20 bits that edges are sorted by: a float32 from 2^-23 to 2^9, 15 bits of mantissa."""
    bits = int(np.float32(weight).view(np.int32))
    return min(max(bits - ((127 - 23) << 23), 0) >> 8, 2**20 - 1)


def segment(
    smoothed: np.ndarray, repeats: int, k: float, min_size: int
) -> tuple[np.ndarray, list[tuple[float, int, int]]]:
    """Return labels `(H, W)` and the sorted edges; components are sets, weights float32."""
    _, height, width = smoothed.shape
    flat = smoothed.reshape(len(smoothed), -1)
    edges = []
    for first, second in list_neighbours(height, width):
        total = np.float32(0)
        for plane in flat:
            difference = plane[first] - plane[second]
            total += difference * difference
        weight = np.sqrt(total * np.float32(repeats))
        edges.append((float(weight), first, second))
    edges.sort(key=lambda edge: truncate_weight(edge[0]))  # stable: equal keys stay in grid order
    component_of_pixel = {pixel: frozenset([pixel]) for pixel in range(height * width)}
    largest = {component: np.float32(0) for component in component_of_pixel.values()}

    def join(first: frozenset, second: frozenset, weight: float) -> None:
        joined = first | second
        largest[joined] = np.float32(weight)
        for pixel in joined:
            component_of_pixel[pixel] = joined

    for weight, first, second in edges:
        a, b = component_of_pixel[first], component_of_pixel[second]
        if a is not b and all(
            weight <= largest[c] + np.float32(k) / np.float32(len(c)) for c in (a, b)
        ):
            join(a, b, weight)
    for weight, first, second in edges:
        a, b = component_of_pixel[first], component_of_pixel[second]
        if a is not b and min(len(a), len(b)) < min_size:
            join(a, b, weight)
    numbers: dict[frozenset, int] = {}
    labels = [
        numbers.setdefault(component_of_pixel[pixel], len(numbers))
        for pixel in range(height * width)
    ]
    return np.array(labels).reshape(height, width), edges


def find_boxes(labels: np.ndarray) -> np.ndarray:
    """Find the half-open boxes `(R, 4)` of the regions."""
    corners = []
    for label in range(labels.max() + 1):
        y, x = np.nonzero(labels == label)
        corners.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
    return np.array(corners)


def find_adjacent(labels: np.ndarray) -> set[tuple[int, int]]:
    """Find the pairs of regions, lower label first, with 4-connected pixels."""
    pairs = [*zip(labels[:, :-1].ravel(), labels[:, 1:].ravel(), strict=True)]
    pairs += zip(labels[:-1].ravel(), labels[1:].ravel(), strict=True)
    return {(int(min(p)), int(max(p))) for p in pairs if p[0] != p[1]}


def compute_colour_histogram(planes: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return 25 bins per channel of the pixels in `mask`, of sum 1."""
    counts = []
    for plane in planes:
        bins = np.floor(plane[mask] / 255 * 24 + 0.5).astype(int)
        counts.append(np.bincount(bins, minlength=25))
    counts = np.concatenate(counts)
    return counts / counts.sum()


def compute_orientations(planes: np.ndarray) -> np.ndarray:
    """Return Gaussian derivatives `(C, 4, H, W)` along 0, 45, 90, 135 degrees, sigma 1, exact on ramps."""
    smooth = build_bell(1.0, 4)
    offsets = np.arange(-4, 5)
    slope = offsets * smooth / (offsets**2 * smooth).sum()
    out = []
    for plane in planes:
        across, down = correlate(plane, slope, smooth), correlate(plane, smooth, slope)
        diagonal = math.sqrt(0.5)
        out.append([across, (across + down) * diagonal, down, (down - across) * diagonal])
    return np.array(out)


def compute_texture_histogram(derivatives: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return 10 bins for each of 8 orientations per channel of the pixels in `mask`, of sum 1."""
    counts = []
    for channel in derivatives:
        for axis in channel:
            for sign in (1, -1):
                value = np.maximum(sign * axis[mask], 0)
                bins = np.minimum(np.floor(value / (0.43 * 255) * 9 + 0.5), 9).astype(int)
                counts.append(np.bincount(bins, minlength=10))
    counts = np.concatenate(counts)
    return counts / counts.sum()


def compute_similarity(
    first: np.ndarray,
    second: np.ndarray,
    planes: np.ndarray,
    derivatives: np.ndarray,
    measures: str,
) -> float:
    """Compute the similarity of two masks `(H, W)` by equations 1 and 3 to 6 of the paper."""
    union, pixels = first | second, first.size
    y, x = np.nonzero(union)
    box = (x.max() - x.min() + 1) * (y.max() - y.min() + 1)
    value = 0.0
    if "C" in measures:
        value += np.minimum(
            compute_colour_histogram(planes, first), compute_colour_histogram(planes, second)
        ).sum()
    if "T" in measures:
        value += np.minimum(
            compute_texture_histogram(derivatives, first),
            compute_texture_histogram(derivatives, second),
        ).sum()
    if "S" in measures:
        value += 1 - union.sum() / pixels
    if "F" in measures:
        value += 1 - (box - union.sum()) / pixels
    return float(value)
