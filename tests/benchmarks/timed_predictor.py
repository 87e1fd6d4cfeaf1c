"""The predictor, timed by phase."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from pipeline import imaging
from pipeline.detector.predictor import Detections, Predictor


class TimedPredictor:
    """Detects in encoded images one by one and adds up the seconds of each phase."""

    def __init__(self, predictor: Predictor, clock: Callable[[], float]) -> None:
        self.predictor, self.clock = predictor, clock
        self.seconds: dict[str, float] = defaultdict(float)
        self.shape, self.rois = (0, 0), 0
        network = predictor.network
        self._time(predictor, "_preprocessed", "resize")
        self._time(network, "features", "trunk")
        self._time(network, "scores_and_deltas", "RoIs")
        self._time(network, "pooled", "pooling")
        self._time(predictor, "_detections", "post-processing")

    def __call__(self, encoded: bytes, boxes: np.ndarray) -> Detections:
        """The detections in one image; `shape` and `rois` tell afterwards what the network saw."""
        begin = self.clock()
        image = imaging.decode(encoded)
        self.seconds["decode"] += self.clock() - begin
        (found,) = self.predictor([image], [boxes])
        self.seconds["all"] += self.clock() - begin
        return found

    def phases(self) -> dict[str, float]:
        """Seconds by phase; the last are the joining of RoIs that pool the same cells, and Python."""
        spent = self.seconds
        named = {
            "decode": spent["decode"],
            "resize": spent["resize"],
            "trunk": spent["trunk"],
            "RoI pooling": spent["pooling"],
            "head": spent["RoIs"] - spent["pooling"],
            "post-processing": spent["post-processing"],
        }
        return named | {"joining, the rest": spent["all"] - sum(named.values())}

    def _time(self, owner: object, method: str, name: str) -> None:
        function = getattr(owner, method)

        def timed(*arguments):
            begin = self.clock()
            result = function(*arguments)
            self.seconds[name] += self.clock() - begin
            if name == "trunk":
                self.shape = tuple(arguments[0].shape[2:])
            elif name == "RoIs":
                self.rois = len(arguments[1])
            return result

        setattr(owner, method, timed)
