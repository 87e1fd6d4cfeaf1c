"""The methods that the selective-search benchmark compares: this project's and the installed peers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import InvalidConfiguration
from pipeline.proposals import STRATEGIES, Strategy, selective_search
from pipeline.proposals.ranking import find_first_occurrences

OPENCV_KS = (50.0, 100.0, 150.0)
"""The k of OpenCV's Fast with base_k=50, inc_k=50: 12 hierarchies, where the paper's Fast has 8."""


LEARNED_SUFFIX = ", learned"
"""Ends the names of this project's strategies in the learned order; without it, they are in the authors'."""


class Method(NamedTuple):
    """A way to propose boxes float32 `(N, 4)` for an image uint8 `(H, W, 3)`; slow ones get fewer images."""

    name: str
    propose: Callable[[np.ndarray], np.ndarray]
    slow: bool = False


def list_methods(min_side: int) -> list[Method]:
    """List the installed methods and print the missing ones."""

    def bind_strategy(
        strategy: str | Strategy, backend: str = "native", ranking: str | None = None
    ) -> Callable:
        return lambda image: selective_search(
            image, strategy, min_side=min_side, backend=backend, ranking=ranking
        )

    fast = STRATEGIES["fast"]
    methods = [
        Method(
            f"ours, {name}{LEARNED_SUFFIX * (ranking == 'learned')}",
            bind_strategy(name, ranking=ranking),
        )
        for name in STRATEGIES
        for ranking in ("authors", "learned")
    ]
    methods.append(
        Method(
            "ours, fast with OpenCV's 3 k",
            bind_strategy(Strategy(fast.colour_spaces, fast.similarities, OPENCV_KS)),
        )
    )
    try:
        selective_search(np.zeros((8, 8, 3), np.uint8), backend="opencv")
        methods += _list_opencv_methods(bind_strategy, min_side)
    except InvalidConfiguration as error:
        print(f"skipped: {error}")
    methods.append(
        Method("selectivesearch (PyPI)", bind_strategy("single", "selectivesearch"), slow=True)
    )
    try:
        dlib = importlib.import_module("dlib")
        methods.append(Method("dlib", lambda image: _search_dlib(dlib, image, min_side)))
    except ImportError:
        print("skipped: dlib is not installed")
    return methods


def list_versions() -> dict[str, str]:
    """Versions of the installed packages that are compared."""
    names = (
        "numpy",
        "numba",
        "opencv-contrib-python-headless",
        "selectivesearch",
        "dlib",
        "dlib-bin",
    )
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def _list_opencv_methods(bind_strategy: Callable, min_side: int) -> list[Method]:
    import cv2

    cv2.setNumThreads(1)
    create_search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    def bind_default_k(switch: str) -> Callable:
        def propose(image: np.ndarray) -> np.ndarray:
            search = create_search()
            search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
            getattr(search, switch)()
            return _convert_xywh(search.process(), min_side)

        return propose

    return [
        Method("OpenCV, single (k 100)", bind_strategy("single", "opencv")),
        Method("OpenCV, fast (base_k 50, inc_k 50)", bind_strategy("fast", "opencv")),
        Method(
            "OpenCV, fast, the paper's 8",
            lambda i: _search_opencv_paper(cv2, i, min_side),
            slow=True,
        ),
        Method(
            "OpenCV, fast, its own k (150, 300, 450)",
            bind_default_k("switchToSelectiveSearchFast"),
            slow=True,
        ),
        Method(
            "OpenCV, quality (base_k 50, inc_k 50)", bind_strategy("quality", "opencv"), slow=True
        ),
        Method(
            "OpenCV, quality, its own k",
            bind_default_k("switchToSelectiveSearchQuality"),
            slow=True,
        ),
    ]


def _search_opencv_paper(cv2: Any, image: np.ndarray, min_side: int) -> np.ndarray:
    # HSV and Lab x k 50 and 100 x C+T+S+F and T+S+F.
    kit = cv2.ximgproc.segmentation
    bgr = np.ascontiguousarray(image[..., ::-1])
    search = kit.createSelectiveSearchSegmentation()
    search.setBaseImage(bgr)
    for code in (cv2.COLOR_BGR2HSV, cv2.COLOR_BGR2Lab):
        search.addImage(cv2.cvtColor(bgr, code))
    for k in (50.0, 100.0):
        search.addGraphSegmentation(kit.createGraphSegmentation(0.8, k))
    for measures in ("CTSF", "TSF"):
        similarity = kit.createSelectiveSearchSegmentationStrategyMultiple()
        for measure in measures:
            kind = {"C": "Color", "T": "Texture", "S": "Size", "F": "Fill"}[measure]
            part = getattr(kit, f"createSelectiveSearchSegmentationStrategy{kind}")()
            similarity.addStrategy(part, 1 / len(measures))
        search.addStrategy(similarity)
    return _convert_xywh(search.process(), min_side)


def _search_dlib(dlib: Any, image: np.ndarray, min_side: int) -> np.ndarray:
    rectangles: list = []
    dlib.find_candidate_object_locations(image, rectangles)
    corners = [(r.left(), r.top(), r.width(), r.height()) for r in rectangles]
    return _convert_xywh(np.array(corners, np.int32), min_side)


def _convert_xywh(xywh: np.ndarray, min_side: int) -> np.ndarray:
    rectangles = np.asarray(xywh, np.int32).reshape(-1, 4)
    rectangles = rectangles[(rectangles[:, 2:] >= min_side).all(axis=1)]
    boxes = np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1)
    return boxes[find_first_occurrences(boxes)].astype(np.float32)
