"""Windows of all images for fine-tuning: every step draws from the whole dataset, not from two images.

R-CNN and SPPnet sample 32 windows that show objects and 96 that show background, wherever they are
(R-CNN, section 2.3; SPPnet, section 4.1). Fast R-CNN, section 2.3, compares its hierarchical sampling with
this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.baselines.settings import System
from pipeline.detector.sampling import is_in_crowd
from pipeline.errors import UnreadableDataset
from pipeline.training.annotated_dataset import AnnotatedDataset, Annotations
from pipeline.training.recipe import Recipe
from pipeline.training.sample_order import make_generator
from pipeline.training.survey import select_candidates

MOST_BACKGROUND = 2_000_000
"""Background windows that are listed; of more, an equal share of each image is."""


@dataclass(frozen=True)
class Windows:
    """Windows of images, in any order."""

    image: NDArray[np.int64]
    """`(N,)`: row of the manifest."""
    boxes: NDArray[np.float32]
    """`(N, 4)` in pixels of the original image."""
    labels: NDArray[np.int64]
    """`(N,)`: 0 is background, class c of the manifest is c + 1."""

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.labels)

    def select(self, rows: NDArray[np.integer]) -> Windows:
        """The windows of these rows, in their order."""
        return Windows(self.image[rows], self.boxes[rows], self.labels[rows])


def join_windows(windows: Sequence[Windows]) -> Windows:
    """All windows of several, in order."""
    return Windows(
        np.concatenate([np.zeros(0, np.int64), *(w.image for w in windows)]),
        np.concatenate([np.zeros((0, 4), np.float32), *(w.boxes for w in windows)]),
        np.concatenate([np.zeros(0, np.int64), *(w.labels for w in windows)]),
    )


@dataclass(frozen=True)
class WindowIndex:
    """The windows that fine-tuning draws from."""

    foreground: Windows
    background: Windows

    def draw(self, count: int, foreground_fraction: float, rng: np.random.Generator) -> Windows:
        """Draw `count` windows with replacement, this share of them foreground and first."""
        quota = round(foreground_fraction * count) if len(self.background) else count
        foreground = rng.integers(0, len(self.foreground), quota)
        background = rng.integers(0, max(1, len(self.background)), count - quota)
        return join_windows(
            [self.foreground.select(foreground), self.background.select(background)]
        )


def index_windows(dataset: AnnotatedDataset, recipe: Recipe, system: System) -> WindowIndex:
    """List the windows of a dataset by reading its proposals once.

    A window is foreground if its IoU with an object is at least the recipe's `foreground_iou`; objects are
    windows too. It is background below that, for SPPnet only from the recipe's `background_iou_low` on;
    R-CNN has no lower limit.

    Raises:
        UnreadableDataset: no window is foreground.
    """
    low = recipe.background_iou_low if system == "sppnet" else 0.0
    share = max(1, MOST_BACKGROUND // max(1, dataset.manifest.rows))
    foreground, background = [], []
    first = 0
    for ordinal, count in enumerate(dataset.shard_rows):
        shard = dataset.read(ordinal)
        for row in range(count):
            annotations = shard.annotations[row]
            if annotations is None:  # what looks like background may be an object
                continue
            proposals = select_candidates(shard.proposals[row], recipe)
            own = _label_windows(first + row, proposals, annotations, recipe)
            best = own.best_iou
            foreground.append(own.windows.select(np.flatnonzero(best >= recipe.foreground_iou)))
            crowds = annotations.boxes[annotations.crowd]
            is_clear = ~is_in_crowd(own.windows.boxes, crowds)
            below = np.flatnonzero((best < recipe.foreground_iou) & (best >= low) & is_clear)
            if len(below) > share:
                below = make_generator("windows", first + row).choice(below, share, replace=False)
            background.append(own.windows.select(below))
        first += count
    index = WindowIndex(join_windows(foreground), join_windows(background))
    if not len(index.foreground):
        raise UnreadableDataset(
            f"no window of {dataset.manifest.rows} images overlaps an object by an IoU of "
            f"{recipe.foreground_iou}"
        )
    return index


@dataclass(frozen=True)
class _LabelledWindows:
    windows: Windows
    best_iou: NDArray[np.float32]


def _label_windows(
    image: int, proposals: NDArray[np.float32], annotations: Annotations, recipe: Recipe
) -> _LabelledWindows:
    objects = annotations.boxes[~annotations.crowd]
    classes = annotations.labels[~annotations.crowd]
    boxes = np.concatenate([proposals, objects]).astype(np.float32)
    best, labels = np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    if len(objects) and len(boxes):
        best, match = geometry.find_best_overlaps(boxes, objects)
        labels = np.where(best >= recipe.foreground_iou, classes[match], 0)
    return _LabelledWindows(Windows(np.full(len(boxes), image), boxes, labels), best)
