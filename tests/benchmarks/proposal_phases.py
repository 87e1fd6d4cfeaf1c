"""The phases of selective search: each kernel's thread time, summed over an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time
from unittest import mock

import numpy as np

from pipeline.proposals import (
    colour,
    edges,
    features,
    hierarchy,
    ranking,
    segmentation,
    selective_search,
)

_PHASES = {
    "colour space": [(colour, "convert_colours")],
    "smoothing": [(hierarchy, "smooth_planes")],
    "edge weights": [(edges, "_weigh_edges")],
    "edge sort": [(edges, "_sort_weights")],
    "union-find": [(segmentation, "_join_similar")],
    "small regions": [(segmentation, "_join_small")],
    "labels": [(segmentation, "_number_regions")],
    "boxes, adjacency": [(hierarchy, "fill_bounding_boxes"), (hierarchy, "find_adjacent_pairs")],
    "bin codes": [(features, "encode_colours"), (features, "encode_textures")],
    "histograms": [(features, "build_colour_histograms"), (features, "build_texture_histograms")],
    "first similarities": [(features, "intersect_pairs")],
    "grouping": [(hierarchy, "group_regions")],
    "ranking": [(ranking, "rank_boxes")],
}


def measure_phases(images: list[np.ndarray], strategy: str, repeats: int = 3) -> dict[str, float]:
    """Milliseconds per image by phase: the best of `repeats` rounds, averaged over the images."""
    best = [defaultdict(lambda: float("inf")) for _ in images]
    with _time_kernels() as spent:
        for _ in range(repeats):
            for image, fewest in zip(images, best, strict=True):
                spent.clear()
                begin = thread_time()
                selective_search(image, strategy)
                total = thread_time() - begin
                spent["all"] = total
                spent["the rest"] = total - sum(spent[name] for name in _PHASES)
                for name, seconds in spent.items():
                    fewest[name] = min(fewest[name], seconds)
    names = [*_PHASES, "the rest", "all"]
    return {name: 1e3 * float(np.mean([fewest[name] for fewest in best])) for name in names}


@contextmanager
def _time_kernels() -> Iterator[dict[str, float]]:
    spent: dict[str, float] = defaultdict(float)

    def wrap(phase: str, function: Callable) -> Callable:
        def call_timed(*arguments):
            begin = thread_time()
            result = function(*arguments)
            spent[phase] += thread_time() - begin
            return result

        return call_timed

    patches = [
        mock.patch.object(module, name, wrap(phase, getattr(module, name)))
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
