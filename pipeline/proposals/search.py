"""Selective search for one image: the station's one call."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__, imaging
from pipeline.errors import InvalidConfiguration, UnreadableImage
from pipeline.proposals import backends
from pipeline.proposals.strategy import Strategy

Backend = Literal["native", "selectivesearch", "opencv"]

ALGORITHM_VERSION = 1
"""Changes with whatever changes the boxes, so that stored proposals tell which code made them."""

MAX_PIXELS = 2**29 - 1  # an edge's number, 4 per pixel, is an int32


def selective_search(
    image: NDArray[np.uint8],
    strategy: str | Strategy = "fast",
    seed: int = 0,
    *,
    max_boxes: int | None = None,
    min_side: float = 20,
    max_side: int | None = None,
    backend: Backend = "native",
) -> NDArray[np.float32]:
    """Propose boxes for the objects in an image, best first.

    Uijlings et al., "Selective Search for Object Recognition", IJCV 2013. Equal arguments give equal
    boxes in equal order, on every machine and any number of threads (OpenCV's order alone is its own).

    Args:
        image: uint8 RGB `(H, W, 3)`.
        strategy: "single", "fast", "quality" (1, 8, 80 hierarchies), or one's own.
        seed: of the random numbers in the ranking; for many images derive it with `image_seed`.
        max_boxes: at most so many, the best ones; None for all.
        min_side: boxes with a smaller side, in pixels of `image`, are left out; 1 keeps all.
        max_side: an image with a longer side is worked on at this size and its boxes are scaled back;
            None works on any size as it is.
        backend: "native" is the project's own; "opencv" and "selectivesearch" call those packages.

    Returns:
        float32 `(N, 4)`, x1 y1 x2 y2 half open in pixels of `image`, no two equal.

    Raises:
        UnreadableImage: no uint8 RGB image, one without pixels, or one of over 2^29 pixels.
        InvalidConfiguration: an argument out of range, or the backend's package is missing.
    """
    _check(image, max_boxes, min_side, max_side)
    height, width = image.shape[:2]
    working = image if max_side is None else _shrunk(image, max_side)
    random = np.random.default_rng(seed)
    found = backends.boxes(backend, np.require(working, np.uint8, ["C", "W"]), strategy, random)
    boxes = found.astype(np.float32)
    if working.shape != image.shape:
        boxes *= np.tile([width / working.shape[1], height / working.shape[0]], 2)
        boxes = np.minimum(boxes, np.array([width, height] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes[(sides >= min_side).all(axis=1)][:max_boxes], np.float32)


def image_seed(seed: int, image_id: str) -> int:
    """An image's own seed: the same whoever computes it, and unlike its neighbours'."""
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def warm_up(strategy: str | Strategy = "fast") -> float:
    """Compile the kernels or load them from Numba's cache (`NUMBA_CACHE_DIR`); returns the seconds.

    Call it once per node before many processes start, so that they find the cache filled.
    """
    begin = time.perf_counter()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    selective_search(noise, strategy, min_side=1)
    return time.perf_counter() - begin


def provenance(
    strategy: str | Strategy = "fast",
    seed: int = 0,
    *,
    max_boxes: int | None = None,
    min_side: float = 20,
    max_side: int | None = None,
    backend: Backend = "native",
) -> dict[str, Any]:
    """What made a set of proposals, as JSON values: two equal ones mean equal boxes."""
    backends.check(backend, strategy)
    return {
        "algorithm": "selective_search",
        "backend": backend,
        "strategy": strategy if isinstance(strategy, str) else "custom",
        "parameters": backends.parameters(backend, strategy),
        "seed": seed,
        "max_boxes": max_boxes,
        "min_side": min_side,
        "max_side": max_side,
        "version": backends.version(backend, ALGORITHM_VERSION),
        "pipeline_version": __version__,
    }


def _check(
    image: NDArray[np.uint8], max_boxes: int | None, min_side: float, max_side: int | None
) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        what = (
            f"{image.dtype} {image.shape}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise UnreadableImage(f"selective search takes a uint8 RGB array (H, W, 3), got {what}")
    height, width, channels = image.shape
    if channels != 3 or height == 0 or width == 0:
        raise UnreadableImage(
            f"selective search takes a uint8 RGB array (H, W, 3) with pixels, got {image.shape}"
        )
    if max_boxes is not None and max_boxes < 1:
        raise InvalidConfiguration(f"max_boxes must be at least 1, got {max_boxes}")
    if not min_side >= 1:
        raise InvalidConfiguration(f"min_side must be at least 1 pixel, got {min_side}")
    if max_side is not None and max_side < 1:
        raise InvalidConfiguration(f"max_side must be at least 1 pixel, got {max_side}")
    if max_side is None and height * width > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels are over {MAX_PIXELS}: set max_side")


def _shrunk(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return image
    return imaging.resize(image, max(1, round(width * factor)), max(1, round(height * factor)))
