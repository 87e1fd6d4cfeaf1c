"""The methods that the selective-search benchmark compares: this project's, and its peers where installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import InvalidConfiguration
from pipeline.proposals import STRATEGIES, Strategy, selective_search
from pipeline.proposals.ranking import first_occurrences

OPENCV_KS = (50.0, 100.0, 150.0)
"""What OpenCV's Fast makes of base_k=50, inc_k=50: 12 hierarchies where the paper's Fast has 8."""


class Method(NamedTuple):
    """A way to propose boxes float32 `(N, 4)` for an image uint8 `(H, W, 3)`; slow ones do fewer."""

    name: str
    propose: Callable[[np.ndarray], np.ndarray]
    slow: bool = False


def methods(min_side: int) -> list[Method]:
    """All methods that are installed."""

    def native(strategy: str | Strategy, backend: str = "native") -> Callable:
        return lambda image: selective_search(image, strategy, min_side=min_side, backend=backend)

    fast = STRATEGIES["fast"]
    found = [
        Method("ours, single", native("single")),
        Method("ours, fast", native("fast")),
        Method(
            "ours, fast with OpenCV's 3 k",
            native(Strategy(fast.colour_spaces, fast.similarities, OPENCV_KS)),
        ),
        Method("ours, quality", native("quality"), slow=True),
    ]
    try:
        selective_search(np.zeros((8, 8, 3), np.uint8), backend="opencv")
        found += _opencv(native, min_side)
    except InvalidConfiguration as error:
        print(f"left out: {error}")
    found.append(Method("selectivesearch (PyPI)", native("single", "selectivesearch"), slow=True))
    try:
        dlib = importlib.import_module("dlib")
        found.append(Method("dlib", lambda image: _dlib(dlib, image, min_side)))
    except ImportError:
        print("left out: dlib is not installed")
    return found


def versions() -> dict[str, str]:
    """Versions of what is compared."""
    names = (
        "numpy",
        "numba",
        "opencv-contrib-python-headless",
        "selectivesearch",
        "dlib",
        "dlib-bin",
    )
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _opencv(native: Callable, min_side: int) -> list[Method]:
    import cv2

    cv2.setNumThreads(1)
    default = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation

    def own_k(switch: str) -> Callable:
        def propose(image: np.ndarray) -> np.ndarray:
            search = default()
            search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
            getattr(search, switch)()
            return _from_xywh(search.process(), min_side)

        return propose

    return [
        Method("OpenCV, single (k 100)", native("single", "opencv")),
        Method("OpenCV, fast (base_k 50, inc_k 50)", native("fast", "opencv")),
        Method("OpenCV, fast, the paper's 8", lambda i: _opencv_paper(cv2, i, min_side), slow=True),
        Method(
            "OpenCV, fast, its own k (150, 300, 450)",
            own_k("switchToSelectiveSearchFast"),
            slow=True,
        ),
        Method("OpenCV, quality (base_k 50, inc_k 50)", native("quality", "opencv"), slow=True),
        Method("OpenCV, quality, its own k", own_k("switchToSelectiveSearchQuality"), slow=True),
    ]


def _opencv_paper(cv2: Any, image: np.ndarray, min_side: int) -> np.ndarray:
    # HSV and Lab x k 50 and 100 x C+T+S+F and T+S+F, put together by hand.
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
    return _from_xywh(search.process(), min_side)


def _dlib(dlib: Any, image: np.ndarray, min_side: int) -> np.ndarray:
    rectangles: list = []
    dlib.find_candidate_object_locations(image, rectangles)
    found = [(r.left(), r.top(), r.width(), r.height()) for r in rectangles]
    return _from_xywh(np.array(found, np.int32), min_side)


def _from_xywh(found: np.ndarray, min_side: int) -> np.ndarray:
    rectangles = np.asarray(found, np.int32).reshape(-1, 4)
    rectangles = rectangles[(rectangles[:, 2:] >= min_side).all(axis=1)]
    boxes = np.concatenate([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]], axis=1)
    return boxes[first_occurrences(boxes)].astype(np.float32)
