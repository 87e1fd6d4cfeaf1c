"""Colour and texture histograms of regions (section 3.2 of the paper).

Colour: 25 bins per channel. Texture: Gaussian derivatives (sigma 1) in 8 orientations, 10 bins each per
channel; an orientation takes the derivative where it is positive and 0 elsewhere, so the 8 are 4 axes
with both signs. Bins round as in the authors' code: colour over 0-255, texture over 0-0.43 of that range.

A pixel's bins depend only on the colour space, so they are computed once, packed a byte each, and every
segmentation of that space only counts them. Histograms are integers of sum 2^24: the sum of smaller bins
then vectorises (22 ns for 240 bins against 100 to 140 ns in floats) and is the same on every machine,
whatever its vector width.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.kernel_cache import njit

COLOUR_BINS = 25
TEXTURE_BINS = 10
ORIENTATIONS = 8
UNIT = 2**24
"""The sum of a histogram's bins, apart from rounding; a float32 holds every bin exactly."""

_AXES = 4
_TOP = TEXTURE_BINS - 1
_AXIS_SLOTS = 2 * _TOP + 1  # signed bins -9 ... 9 of one axis
_TEXTURE_SLOTS = _AXES * _AXIS_SLOTS
_FLAT = np.uint32(sum((axis * _AXIS_SLOTS + _TOP) << (8 * axis) for axis in range(_AXES)))
_BINS_PER_LEVEL = np.float32(_TOP / (0.43 * 255.0))
_DIAGONAL = np.float32(math.sqrt(0.5))

_offsets = np.arange(-4, 5)
_bell = np.exp(-0.5 * _offsets**2)
BELL = (_bell / _bell.sum()).astype(np.float32)
"""Gaussian of sigma 1 at -4 ... 4."""
SLOPE = (_offsets * _bell / (_offsets**2 * _bell).sum()).astype(np.float32)
"""Its derivative as a correlation kernel, scaled so that a ramp of slope 1 gives 1."""
_COLOUR_BIN = ((np.arange(256) * 2 * (COLOUR_BINS - 1) + 255) // 510).astype(np.uint32)


@njit(cache=True, nogil=True, error_model="numpy")
def encode_colours(planes, codes):  # type: ignore[no-untyped-def]
    """Fill `codes` uint32 `(H, W)` with each pixel's colour bins as slots c * 25 + bin, a byte each."""
    count, height, width = planes.shape
    codes[:] = 0
    for c in range(count):
        for y in range(height):
            plane, row = planes[c, y], codes[y]
            for x in range(width):
                slot = _COLOUR_BIN[plane[x]] + np.uint32(COLOUR_BINS * c)
                row[x] |= slot << np.uint32(8 * c)


@njit(inline="always")
def _encode_slot(derivative, axis):  # type: ignore[no-untyped-def]
    # The signed bin of an axis, counted from the axis's first slot, in the axis's byte.
    magnitude = min(abs(derivative) * _BINS_PER_LEVEL + np.float32(0.5), np.float32(_TOP))
    level = np.int32(magnitude)
    signed = level if derivative > 0 else -level
    return np.uint32(signed + np.int32(_TOP + axis * _AXIS_SLOTS)) << np.uint32(8 * axis)


@njit(cache=True, nogil=True, error_model="numpy")
def encode_textures(planes, codes):  # type: ignore[no-untyped-def]
    """Fill `codes` uint32 `(C, H, W)` with the texture bins of planes `(C, H, W)`: 4 axes, a byte each."""
    # Columns first, into two padded rows (smoothed and differentiated), then along these rows: all of
    # it stays in the nearest cache.
    count, height, width = planes.shape
    radius = len(BELL) // 2
    bell = np.empty(width + 2 * radius, np.float32)
    slope = np.empty(width + 2 * radius, np.float32)
    across = np.empty(width, np.float32)
    down = np.empty(width, np.float32)
    for c in range(count):
        for y in range(height):
            centre = planes[c, y]
            for x in range(width):
                bell[radius + x] = BELL[radius] * np.float32(centre[x])
                slope[radius + x] = 0
            for i in range(1, radius + 1):
                above, below = planes[c, max(y - i, 0)], planes[c, min(y + i, height - 1)]
                for x in range(width):
                    high, low = np.float32(above[x]), np.float32(below[x])
                    bell[radius + x] += BELL[radius + i] * (high + low)
                    slope[radius + x] += SLOPE[radius + i] * (low - high)
            for i in range(radius):
                bell[i], slope[i] = bell[radius], slope[radius]
                bell[radius + width + i] = bell[radius + width - 1]
                slope[radius + width + i] = slope[radius + width - 1]
            for x in range(width):
                across[x] = 0
                down[x] = BELL[radius] * slope[radius + x]
            for i in range(1, radius + 1):
                for x in range(width):
                    position = radius + x
                    across[x] += SLOPE[radius + i] * (bell[position + i] - bell[position - i])
                    down[x] += BELL[radius + i] * (slope[position + i] + slope[position - i])
            row = codes[c, y]
            for x in range(width):
                falling = (across[x] + down[x]) * _DIAGONAL
                rising = (down[x] - across[x]) * _DIAGONAL
                row[x] = (
                    _encode_slot(across[x], 0)
                    | _encode_slot(falling, 1)
                    | _encode_slot(down[x], 2)
                    | _encode_slot(rising, 3)
                )


@njit(cache=True, nogil=True, error_model="numpy")
def build_colour_histograms(labels, sizes, codes, channels, histograms):  # type: ignore[no-untyped-def]
    """Fill the first R rows of int32 `(.., 25 C)` with histograms of sum `UNIT`, from `encode_colours`."""
    counts = np.zeros((len(sizes), COLOUR_BINS * channels), np.int32)
    height, width = labels.shape
    for y in range(height):
        row, code = labels[y], codes[y]
        for x in range(width):
            region, slots = counts[row[x]], code[x]
            for c in range(channels):
                region[(slots >> np.uint32(8 * c)) & np.uint32(255)] += 1
    for r in range(len(sizes)):
        scale = np.float32(UNIT) / np.float32(channels * sizes[r])
        for i in range(COLOUR_BINS * channels):
            histograms[r, i] = np.int32(np.float32(counts[r, i]) * scale + np.float32(0.5))


@njit(cache=True, nogil=True, error_model="numpy")
def build_texture_histograms(labels, sizes, codes, histograms):  # type: ignore[no-untyped-def]
    """Fill the first R rows of int32 `(.., 80 C)` with histograms of sum `UNIT`, from `encode_textures`."""
    # Four increments per pixel and channel instead of eight: an axis counts signed bins, and an
    # orientation's bin 0 follows from the region's size. So a pixel whose axes are all in bin 0, as two
    # of three are in photographs, counts nothing: 0.7 ms with that test, 1.2 ms without.
    channels, height, width = codes.shape
    counts = np.zeros((len(sizes), channels * _TEXTURE_SLOTS), np.int32)
    for c in range(channels):
        base = np.uint32(c * _TEXTURE_SLOTS)
        for y in range(height):
            row, code = labels[y], codes[c, y]
            for x in range(width):
                slots = code[x]
                if slots == _FLAT:
                    continue
                region = counts[row[x]]
                region[base + (slots & np.uint32(255))] += 1
                region[base + ((slots >> np.uint32(8)) & np.uint32(255))] += 1
                region[base + ((slots >> np.uint32(16)) & np.uint32(255))] += 1
                region[base + (slots >> np.uint32(24))] += 1
    for r in range(len(sizes)):
        _unfold_axes(counts[r], sizes[r], channels, histograms[r])


@njit(inline="always")
def _unfold_axes(counts, size, channels, histogram):  # type: ignore[no-untyped-def]
    scale = np.float32(UNIT) / np.float32(ORIENTATIONS * channels * size)
    for axis in range(channels * _AXES):
        zero = axis * _AXIS_SLOTS + _TOP
        for sign in range(2):
            target = (2 * axis + sign) * TEXTURE_BINS
            rest = size
            for b in range(1, TEXTURE_BINS):
                pixels = counts[zero + b] if sign == 0 else counts[zero - b]
                rest -= pixels
                histogram[target + b] = np.int32(np.float32(pixels) * scale + np.float32(0.5))
            histogram[target] = np.int32(np.float32(rest) * scale + np.float32(0.5))


@njit(inline="always")
def intersect(first, second):  # type: ignore[no-untyped-def]
    """Sum the smaller bins of two histograms, in `UNIT`s (equations 1 and 3)."""
    total = np.int64(0)
    for i in range(len(first)):
        total += min(first[i], second[i])
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def intersect_pairs(histograms, pairs):  # type: ignore[no-untyped-def]
    """Intersect the histograms of pairs `(E, 2)` of rows: int64 `(E,)`."""
    out = np.empty(len(pairs), np.int64)
    for e in range(len(pairs)):
        out[e] = intersect(histograms[pairs[e, 0]], histograms[pairs[e, 1]])
    return out
