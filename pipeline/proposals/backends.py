"""Who finds the boxes: the project's own kernels, or another package to compare with.

Each is imported when it is first asked for, so that importing this station loads no compiler.
"""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidConfiguration
from pipeline.proposals.strategy import Strategy, resolve

if TYPE_CHECKING:
    from pipeline.proposals.search import Backend

_PACKAGES = {
    "opencv": ("opencv-contrib-python-headless", "pip install 'fast-rcnn-pipeline[opencv]'"),
    "selectivesearch": ("selectivesearch", "pip install selectivesearch"),
}
_OPENCV: dict[str, dict[str, float]] = {
    "single": {"k": 100, "sigma": 0.8},
    "fast": {"base_k": 50, "inc_k": 50, "sigma": 0.8},
    "quality": {"base_k": 50, "inc_k": 50, "sigma": 0.8},
}
"""The paper's k; OpenCV makes k 50, 100, 150 of it for Fast and 50 to 250 for Quality."""
_PYPI = {"scale": 500, "sigma": 0.9, "min_size": 10}
"""The values in the README of `selectivesearch`; it has one strategy only."""


def check(backend: Backend, strategy: str | Strategy) -> None:
    """Refuse a backend that is unknown, lacks its package or cannot do the strategy.

    Raises:
        InvalidConfiguration: with what to do about it.
    """
    if backend == "native":
        resolve(strategy)
    elif backend == "opencv":
        _opencv_module()
        _opencv_name(strategy)
    elif backend == "selectivesearch":
        _selectivesearch_module()
        if strategy not in ("single", "fast"):
            raise InvalidConfiguration(
                f"backend 'selectivesearch' has one strategy of its own: leave out {strategy!r}"
            )
    else:
        raise InvalidConfiguration(
            f"unknown backend {backend!r}; there are native, opencv, selectivesearch"
        )


def boxes(
    backend: Backend,
    image: NDArray[np.uint8],
    strategy: str | Strategy,
    random: np.random.Generator,
) -> NDArray[np.int32]:
    """Boxes int32 `(N, 4)`, half open, best first, no two equal, of an image uint8 `(H, W, 3)`.

    OpenCV ranks by random numbers that it seeds itself: its boxes are always the same, their order is not.
    """
    if backend == "native":
        return _native(image, resolve(strategy), random)
    check(backend, strategy)
    if backend == "opencv":
        return _opencv(image, strategy)
    return _selectivesearch(image, random)


def parameters(backend: Backend, strategy: str | Strategy) -> dict[str, Any]:
    """What the backend is told, as JSON values."""
    if backend == "native":
        return resolve(strategy).parameters()
    return dict(_PYPI) if backend == "selectivesearch" else dict(_OPENCV[_opencv_name(strategy)])


def version(backend: Backend, native_version: int) -> str:
    """The version of the code that finds the boxes."""
    if backend == "native":
        return str(native_version)
    return f"{_PACKAGES[backend][0]} {metadata.version(_PACKAGES[backend][0])}"


def _native(
    image: NDArray[np.uint8], strategy: Strategy, random: np.random.Generator
) -> NDArray[np.int32]:
    # numba and the kernels take 0.5 s to import, and a driver that only plans never needs them.
    from pipeline.proposals.hierarchy import segmentations  # noqa: PLC0415
    from pipeline.proposals.ranking import hierarchy_positions, ranked  # noqa: PLC0415
    from pipeline.proposals.workspace import of_this_thread  # noqa: PLC0415

    workspace = of_this_thread()
    found = [
        hierarchy_positions(segmentation.boxes, segmentation.merged_boxes)
        for segmentation in segmentations(image, strategy, workspace)
    ]
    workspace.trim()
    return ranked(
        np.concatenate([boxes for boxes, _ in found]),
        np.concatenate([positions for _, positions in found]),
        random,
    )


def _missing(backend: str) -> InvalidConfiguration:
    package, hint = _PACKAGES[backend]
    return InvalidConfiguration(
        f"backend {backend!r} needs the package {package}, which is missing: {hint}"
    )


def _opencv_module() -> Any:
    try:
        import cv2  # noqa: PLC0415
    except ImportError as error:
        raise _missing("opencv") from error
    if not hasattr(cv2, "ximgproc"):  # the plain build lacks the contributed modules
        raise _missing("opencv")
    return cv2


def _opencv_name(strategy: str | Strategy) -> str:
    if not isinstance(strategy, str) or strategy not in _OPENCV:
        raise InvalidConfiguration(
            f"backend 'opencv' takes the strategies single, fast and quality, got {strategy!r}"
        )
    return strategy


def _opencv(image: NDArray[np.uint8], strategy: str | Strategy) -> NDArray[np.int32]:
    search = _opencv_module().ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    name = _opencv_name(strategy)
    switches = {
        "single": search.switchToSingleStrategy,
        "fast": search.switchToSelectiveSearchFast,
        "quality": search.switchToSelectiveSearchQuality,
    }
    switches[name](**_OPENCV[name])
    return _unique_from_xywh(search.process())


def _selectivesearch_module() -> Any:
    try:
        import selectivesearch  # noqa: PLC0415
    except ImportError as error:
        raise _missing("selectivesearch") from error
    return selectivesearch


def _selectivesearch(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.int32]:
    # It gives the initial regions and then the merges, unranked; its widths are last - first pixel.
    from pipeline.proposals.ranking import hierarchy_positions, ranked  # noqa: PLC0415

    with warnings.catch_warnings():  # of its own use of scikit-image
        warnings.simplefilter("ignore")
        _, regions = _selectivesearch_module().selective_search(image, **_PYPI)
    corners = _corners([region["rect"] for region in regions])
    corners[:, 2:] += 1
    initial = sum(len(region["labels"]) == 1 for region in regions)
    return ranked(*hierarchy_positions(corners[:initial], (corners[initial:],)), random)


def _unique_from_xywh(found: Any) -> NDArray[np.int32]:
    from pipeline.proposals.ranking import first_occurrences  # noqa: PLC0415

    corners = _corners(found)
    return np.asarray(corners[first_occurrences(corners)], np.int32)


def _corners(rectangles: Any) -> NDArray[np.int32]:
    found = np.asarray(rectangles, np.int32).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
