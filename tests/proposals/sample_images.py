"""Small random images for the tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st


def draw_blocks(seed: int, height: int, width: int) -> np.ndarray:
    """Draw an image uint8 `(H, W, 3)` of random rectangles with a little noise."""
    random = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.int64)
    image[:] = random.integers(0, 256, 3)
    for _ in range(6):
        y, x = random.integers(0, height), random.integers(0, width)
        down, across = random.integers(1, height + 1), random.integers(1, width + 1)
        image[y : y + down, x : x + across] = random.integers(0, 256, 3)
    image += random.integers(-6, 7, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_noise(seed: int, height: int, width: int) -> np.ndarray:
    """Draw an image uint8 `(H, W, 3)` of independent pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def images(largest: int = 20) -> st.SearchStrategy[np.ndarray]:
    """Strategy for small images: blocks, noise or flat, of any shape from 1x1."""
    sides = st.integers(1, largest)
    seeds = st.integers(0, 2**32 - 1)
    flat = st.builds(
        lambda value, height, width: np.full((height, width, 3), value, np.uint8),
        st.integers(0, 255),
        sides,
        sides,
    )
    return st.one_of(
        st.builds(draw_blocks, seeds, sides, sides),
        st.builds(draw_noise, seeds, sides, sides),
        flat,
    )
