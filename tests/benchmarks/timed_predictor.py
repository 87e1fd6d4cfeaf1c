"""A predictor that is timed by phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from pipeline import imaging
from pipeline.detector.predictor import ImageDetections, Predictor


class TimedPredictor:
    """Detects in encoded images one by one and sums the seconds of each phase."""

    def __init__(self, predictor: Predictor, clock: Callable[[], float]) -> None:
        self.predictor, self.clock = predictor, clock
        self.seconds: dict[str, float] = defaultdict(float)
        self.shape, self.rois = (0, 0), 0
        network = predictor.network
        self._time(predictor.preparation, "_stage_images", "resize")
        self._time(predictor, "_normalise", "resize")
        self._time(network, "extract_features", "trunk")
        self._time(network, "score_rois", "RoIs")
        self._time(network, "pool_rois", "pooling")
        self._time(predictor, "_postprocess", "post-processing")

    def __call__(self, encoded: bytes, boxes: np.ndarray) -> ImageDetections:
        """Detect in one image; sets `shape` and `rois` to what the network received."""
        begin = self.clock()
        image = imaging.decode_image(encoded)
        self.seconds["decode"] += self.clock() - begin
        (detections,) = self.predictor([image], [boxes])
        self.seconds["all"] += self.clock() - begin
        return detections

    def sum_phases(self) -> dict[str, float]:
        """Seconds by phase; the last joins RoIs that pool the same cells, and holds Python's overhead."""
        spent = self.seconds
        by_phase = {
            "decode": spent["decode"],
            "resize": spent["resize"],
            "trunk": spent["trunk"],
            "RoI pooling": spent["pooling"],
            "head": spent["RoIs"] - spent["pooling"],
            "post-processing": spent["post-processing"],
        }
        return by_phase | {"joining, the rest": spent["all"] - sum(by_phase.values())}

    def _time(self, owner: object, method: str, name: str) -> None:
        function = getattr(owner, method)

        def call_timed(*arguments):
            begin = self.clock()
            result = function(*arguments)
            self.seconds[name] += self.clock() - begin
            if name == "trunk":
                self.shape = tuple(arguments[0].shape[2:])
            elif name == "RoIs":
                self.rois = len(arguments[1])
            return result

        setattr(owner, method, call_timed)
