"""Who finds the boxes: the project's own kernels, or another package to compare with.

A function imports its backend's package when it first needs it, so importing this station loads no compiler.
"""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.ranking_model import RankingModel
from pipeline.proposals.strategy import Strategy, resolve_strategy

Backend = Literal["native", "selectivesearch", "opencv"]

_PACKAGES = {
    "opencv": ("opencv-contrib-python-headless", "pip install '.[opencv]'"),
    "selectivesearch": ("selectivesearch", "pip install selectivesearch"),
}
_OPENCV: dict[str, dict[str, float]] = {
    "single": {"k": 100, "sigma": 0.8},
    "fast": {"base_k": 50, "inc_k": 50, "sigma": 0.8},
    "quality": {"base_k": 50, "inc_k": 50, "sigma": 0.8},
}
"""The paper's k; from it OpenCV derives k 50, 100, 150 for Fast and 50 to 250 for Quality."""
_PYPI = {"scale": 500, "sigma": 0.9, "min_size": 10}
"""The values in the README of `selectivesearch`; it has only one strategy."""


def check_backend(backend: Backend, strategy: str | Strategy) -> None:
    """Check that a backend exists, that its package is installed and that it supports the strategy.

    Raises:
        InvalidConfiguration: with what to do about it.
    """
    if backend == "native":
        resolve_strategy(strategy)
    elif backend == "opencv":
        _import_opencv()
        _check_opencv_strategy(strategy)
    elif backend == "selectivesearch":
        _import_selectivesearch()
        if strategy not in ("single", "fast"):
            raise InvalidConfiguration(
                f"backend 'selectivesearch' has only its own strategy: leave out {strategy!r}"
            )
    else:
        raise InvalidConfiguration(
            f"unknown backend {backend!r}; choose native, opencv or selectivesearch"
        )


def run_backend(  # noqa: PLR0917
    backend: Backend,
    image: NDArray[np.uint8],
    strategy: str | Strategy,
    random: np.random.Generator,
    model: RankingModel | None = None,
    least_sides: tuple[float, float] = (1, 1),
) -> NDArray[np.int32]:
    """Find boxes int32 `(N, 4)`, half open, best first, no two equal, in an image uint8 `(H, W, 3)`.

    OpenCV seeds its ranking itself: its boxes are always the same, but their order varies.

    Args:
        backend: who finds them.
        image: to search.
        strategy: which hierarchies.
        random: of the authors' order.
        model: orders the boxes of the native backend instead.
        least_sides: width and height that boxes need to be ranked by the model; smaller ones are left out.
    """
    if backend == "native":
        return _run_native(image, resolve_strategy(strategy), random, model, least_sides)
    check_backend(backend, strategy)
    if backend == "opencv":
        return _run_opencv(image, strategy)
    return _run_selectivesearch(image, random)


def list_parameters(backend: Backend, strategy: str | Strategy) -> dict[str, Any]:
    """List the parameters that the backend runs with, as JSON values."""
    if backend == "native":
        return resolve_strategy(strategy).to_json()
    if backend == "selectivesearch":
        return dict(_PYPI)
    return dict(_OPENCV[_check_opencv_strategy(strategy)])


def get_backend_version(backend: Backend, native_version: int) -> str:
    """Return the version of the code that finds the boxes."""
    if backend == "native":
        return str(native_version)
    package, _ = _PACKAGES[backend]
    return f"{package} {metadata.version(package)}"


def _run_native(
    image: NDArray[np.uint8],
    strategy: Strategy,
    random: np.random.Generator,
    model: RankingModel | None,
    least_sides: tuple[float, float],
) -> NDArray[np.int32]:
    # numba and the kernels take 0.5 s to import, and a driver that only plans never needs them.
    from pipeline.proposals.hierarchy import build_hierarchies  # noqa: PLC0415
    from pipeline.proposals.learned_ranking import rank_by_model  # noqa: PLC0415
    from pipeline.proposals.ranking import assign_positions, rank_boxes  # noqa: PLC0415
    from pipeline.proposals.workspace import get_thread_workspace  # noqa: PLC0415

    workspace = get_thread_workspace()
    if model is not None:
        hierarchies = build_hierarchies(image, strategy, workspace)
        ranked = rank_by_model(image, hierarchies, least_sides, model)
        workspace.trim()
        return ranked
    boxes_and_positions = [
        assign_positions(segmentation.boxes, segmentation.merged_boxes)
        for segmentation in build_hierarchies(image, strategy, workspace)
    ]
    workspace.trim()
    return rank_boxes(
        np.concatenate([boxes for boxes, _ in boxes_and_positions]),
        np.concatenate([positions for _, positions in boxes_and_positions]),
        random,
    )


def _missing_package(backend: str) -> InvalidConfiguration:
    package, hint = _PACKAGES[backend]
    return InvalidConfiguration(
        f"backend {backend!r} needs the package {package}, which is missing: {hint}"
    )


def _import_opencv() -> Any:
    try:
        import cv2  # noqa: PLC0415
    except ImportError as error:
        raise _missing_package("opencv") from error
    if not hasattr(cv2, "ximgproc"):  # the plain build lacks the contributed modules
        raise _missing_package("opencv")
    return cv2


def _check_opencv_strategy(strategy: str | Strategy) -> str:
    if not isinstance(strategy, str) or strategy not in _OPENCV:
        raise InvalidConfiguration(
            f"backend 'opencv' supports the strategies single, fast and quality, got {strategy!r}"
        )
    return strategy


def _run_opencv(image: NDArray[np.uint8], strategy: str | Strategy) -> NDArray[np.int32]:
    from pipeline.proposals.ranking import find_first_occurrences  # noqa: PLC0415

    search = _import_opencv().ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    name = _check_opencv_strategy(strategy)
    switches = {
        "single": search.switchToSingleStrategy,
        "fast": search.switchToSelectiveSearchFast,
        "quality": search.switchToSelectiveSearchQuality,
    }
    switches[name](**_OPENCV[name])
    boxes = _convert_rectangles(search.process())
    return np.asarray(boxes[find_first_occurrences(boxes)], np.int32)


def _import_selectivesearch() -> Any:
    try:
        import selectivesearch  # noqa: PLC0415
    except ImportError as error:
        raise _missing_package("selectivesearch") from error
    return selectivesearch


def _run_selectivesearch(
    image: NDArray[np.uint8], random: np.random.Generator
) -> NDArray[np.int32]:
    # It returns the initial regions and then the merges, unranked; its widths are last - first pixel.
    from pipeline.proposals.ranking import assign_positions, rank_boxes  # noqa: PLC0415

    with warnings.catch_warnings():  # of its own use of scikit-image
        warnings.simplefilter("ignore")
        _, regions = _import_selectivesearch().selective_search(image, **_PYPI)
    boxes = _convert_rectangles([region["rect"] for region in regions])
    boxes[:, 2:] += 1
    initial = sum(len(region["labels"]) == 1 for region in regions)
    return rank_boxes(*assign_positions(boxes[:initial], (boxes[initial:],)), random)


def _convert_rectangles(rectangles: Any) -> NDArray[np.int32]:
    """Turn x, y, width, height into x1, y1, x2, y2."""
    xywh = np.asarray(rectangles, np.int32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
