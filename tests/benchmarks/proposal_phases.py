"""Where selective search spends its time: each kernel's thread time, summed over an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time
from unittest import mock

import numpy as np

from pipeline.proposals import colour, edges, features, hierarchy, ranking, segmentation
from pipeline.proposals import selective_search as propose

_PHASES = {
    "colour space": [(colour, "convert")],
    "smoothing": [(hierarchy, "smooth")],
    "edge weights": [(edges, "_weigh")],
    "edge sort": [(edges, "_sort")],
    "union-find": [(segmentation, "_join_similar")],
    "small regions": [(segmentation, "_join_small")],
    "labels": [(segmentation, "_number")],
    "boxes, adjacency": [(hierarchy, "bounding_boxes"), (hierarchy, "adjacent_pairs")],
    "bin codes": [(features, "colour_codes"), (features, "texture_codes")],
    "histograms": [(features, "colour_histograms"), (features, "texture_histograms")],
    "first similarities": [(features, "pair_intersections")],
    "grouping": [(hierarchy, "group")],
    "ranking": [(ranking, "ranked")],
}


def phases(images: list[np.ndarray], strategy: str, repeats: int = 3) -> dict[str, float]:
    """Milliseconds per image by phase, the best of `repeats` rounds, mean over the images."""
    best = [defaultdict(lambda: float("inf")) for _ in images]
    with _timed() as spent:
        for _ in range(repeats):
            for image, fewest in zip(images, best, strict=True):
                spent.clear()
                begin = thread_time()
                propose(image, strategy)
                total = thread_time() - begin
                spent["all"] = total
                spent["the rest"] = total - sum(spent[name] for name in _PHASES)
                for name, seconds in spent.items():
                    fewest[name] = min(fewest[name], seconds)
    names = [*_PHASES, "the rest", "all"]
    return {name: 1e3 * float(np.mean([fewest[name] for fewest in best])) for name in names}


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    spent: dict[str, float] = defaultdict(float)

    def wrapped(phase: str, function: Callable) -> Callable:
        def timed(*arguments):
            begin = thread_time()
            result = function(*arguments)
            spent[phase] += thread_time() - begin
            return result

        return timed

    patches = [
        mock.patch.object(module, name, wrapped(phase, getattr(module, name)))
        for phase, places in _PHASES.items()
        for module, name in places
    ]
    for patch in patches:
        patch.start()
    try:
        yield spent
    finally:
        for patch in patches:
            patch.stop()
