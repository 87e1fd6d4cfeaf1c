"""Selective search for one image: the station's entry point."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import __version__, imaging
from pipeline.errors import InvalidConfiguration, UnreadableImage
from pipeline.proposals.backends import (
    Backend,
    check_backend,
    get_backend_version,
    list_parameters,
    run_backend,
)
from pipeline.proposals.ranking_choice import choose_ranking, describe_ranking, load_ranking
from pipeline.proposals.ranking_model import RankingModel
from pipeline.proposals.strategy import Strategy

SELECTIVE_SEARCH_VERSION = 2
"""Increase it with every change that changes the boxes: stored proposals record it."""

MAX_PIXELS = 2**29 - 1  # an edge's number, 4 per pixel, is an int32

_EXPECTED_IMAGE = "selective search takes a uint8 RGB array (H, W, 3)"


def selective_search(
    image: NDArray[np.uint8],
    strategy: str | Strategy = "fast",
    seed: int = 0,
    *,
    max_boxes: int | None = None,
    min_side: float = 20,
    max_side: int | None = None,
    backend: Backend = "native",
    ranking: str | RankingModel | None = None,
) -> NDArray[np.float32]:
    """Propose boxes for the objects in an image, best first.

    Uijlings et al., "Selective Search for Object Recognition", IJCV 2013. Equal arguments give equal
    boxes in equal order, on every machine and any number of threads; only OpenCV's order varies.

    Args:
        image: uint8 RGB `(H, W, 3)`.
        strategy: "single", "fast", "quality" (1, 8, 80 hierarchies), "lean", "balanced", "wide" (8, 12, 16),
            or a custom one.
        seed: of the random numbers in the authors' ranking; for many images derive it with
            `derive_image_seed`. Learned rankings draw none.
        max_boxes: the number of best boxes to keep; None keeps all.
        min_side: drop boxes with a smaller side, in pixels of `image`; 1 keeps all.
        max_side: shrink an image to this longer side before the search and scale its boxes back;
            None searches every image at its own size.
        backend: "native" is the project's own; "opencv" and "selectivesearch" call those packages.
        ranking: "authors", "learned", a model of jobs/rank.py or its URI, which each call reads; None takes
            the strategy's own: "learned" for "lean", "balanced" and "wide", "authors" for all others.

    Returns:
        float32 `(N, 4)`, x1 y1 x2 y2 half open in pixels of `image`, no two equal.

    Raises:
        UnreadableImage: not a uint8 RGB image, no pixels, or over 2^29 pixels.
        InvalidConfiguration: an argument out of range, the backend's package is missing, or the ranking is
            no model.
        StorageError: the ranking's model cannot be read.
    """
    _check_image(image, max_side)
    _check_options(max_boxes, min_side, max_side)
    height, width = image.shape[:2]
    searched = image if max_side is None else _shrink(image, max_side)
    if isinstance(ranking, RankingModel):
        model: RankingModel | None = ranking
    else:
        model = load_ranking(choose_ranking(ranking, strategy, backend))
    # A little less than asked for: the boxes are measured again below, in pixels of `image`.
    least = 0.999 * min_side
    boxes = run_backend(
        backend,
        np.require(searched, np.uint8, ["C", "W"]),
        strategy,
        np.random.default_rng(seed),
        model,
        (least * searched.shape[1] / width, least * searched.shape[0] / height),
    ).astype(np.float32)
    if searched.shape != image.shape:
        boxes *= np.tile([width / searched.shape[1], height / searched.shape[0]], 2)
        boxes = np.minimum(boxes, np.array([width, height] * 2, np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(boxes[(sides >= min_side).all(axis=1)][:max_boxes], np.float32)


def derive_image_seed(seed: int, image_id: str) -> int:
    """Derive an image's seed from the run's: equal on every worker, different for every image."""
    digest = hashlib.blake2b(f"{seed}:{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def warm_up_kernels(
    strategy: str | Strategy = "fast", ranking: str | RankingModel | None = None
) -> float:
    """Compile the kernels or load them from Numba's cache (`NUMBA_CACHE_DIR`); returns the seconds.

    Call it once per node before many processes start: they then load the kernels from the cache.
    """
    begin = time.perf_counter()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    selective_search(noise, strategy, min_side=1, ranking=ranking)
    return time.perf_counter() - begin


def describe_provenance(
    strategy: str | Strategy = "fast",
    seed: int = 0,
    *,
    max_boxes: int | None = None,
    min_side: float = 20,
    max_side: int | None = None,
    backend: Backend = "native",
    ranking: str | None = None,
    ranking_digest: str | None = None,
) -> dict[str, Any]:
    """Describe how proposals are made, as JSON values; equal descriptions mean equal boxes.

    A learned ranking is named with the digest of its model; without `ranking`, it is the authors'.
    """
    check_backend(backend, strategy)
    chosen = choose_ranking(ranking, strategy, backend)
    return {
        "algorithm": "selective_search",
        "backend": backend,
        "strategy": strategy if isinstance(strategy, str) else "custom",
        "parameters": list_parameters(backend, strategy),
        "seed": seed,
        "max_boxes": max_boxes,
        "min_side": min_side,
        "max_side": max_side,
        "version": get_backend_version(backend, SELECTIVE_SEARCH_VERSION),
        "pipeline_version": __version__,
        **describe_ranking(chosen, ranking_digest),
    }


def _check_image(image: NDArray[np.uint8], max_side: int | None) -> None:
    if not isinstance(image, np.ndarray):
        raise UnreadableImage(f"{_EXPECTED_IMAGE}, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3:
        raise UnreadableImage(f"{_EXPECTED_IMAGE}, got {image.dtype} {image.shape}")
    height, width, channels = image.shape
    if channels != 3 or height == 0 or width == 0:
        raise UnreadableImage(f"{_EXPECTED_IMAGE} with pixels, got {image.shape}")
    if max_side is None and height * width > MAX_PIXELS:
        raise UnreadableImage(
            f"{width}x{height} pixels are more than the limit of {MAX_PIXELS}: set max_side"
        )


def _check_options(max_boxes: int | None, min_side: float, max_side: int | None) -> None:
    if max_boxes is not None and max_boxes < 1:
        raise InvalidConfiguration(f"max_boxes must be at least 1, got {max_boxes}")
    if not min_side >= 1:
        raise InvalidConfiguration(f"min_side must be at least 1 pixel, got {min_side}")
    if max_side is not None and max_side < 1:
        raise InvalidConfiguration(f"max_side must be at least 1 pixel, got {max_side}")


def _shrink(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return image
    return imaging.resize(image, max(1, round(width * factor)), max(1, round(height * factor)))
