"""Multi-scale testing (Fast R-CNN, sections 4.2 and 5.4): an image pyramid and each RoI's level.

Each RoI is pooled from the scale where its area is nearest to 224 x 224 pixels, as in SPPnet (He et al.,
ECCV 2014) and the released code. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidConfiguration

TARGET_AREA = 224 * 224
"""In scaled pixels: the size of objects in the pretrained networks' training."""

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True)
class Pyramid:
    """Scales at which the network sees images, in place of the checkpoint's single scale."""

    scales: tuple[int, ...] = ()
    """Shorter sides of the scaled image, in pixels; each RoI uses the scale at which its area is nearest
    to 224 x 224 (the paper: 480 576 688 864 1200). Unset: the checkpoint's single scale."""
    scale_cap: int | None = None
    """Longest side of a scaled image, in pixels (the paper: 2000 with several scales). Unset: the
    checkpoint's own."""

    def build_levels(self, preprocessing: Preprocessing) -> tuple[Preprocessing, ...]:
        """Build the preprocessing of each scale.

        Args:
            preprocessing: the checkpoint's; its size applies if no scale or cap is set.

        Raises:
            InvalidConfiguration: a scale below 32 pixels or above the cap.
        """
        cap = preprocessing.max_side if self.scale_cap is None else self.scale_cap
        try:
            return tuple(
                replace(preprocessing, short_side=side, max_side=cap)
                for side in self.scales or (preprocessing.short_side,)
            )
        except InvalidConfiguration as error:
            raise InvalidConfiguration(f"--scales, --scale-cap: {error}") from error


class LevelRois(NamedTuple):
    """The RoIs of one image that are pooled at one scale."""

    image_index: int
    """Index among the predictor's images."""
    shape: Size
    """Height and width of the scaled image."""
    rows: NDArray[np.intp]
    """`(M,)`: indices of the RoIs among the image's, ascending."""


def assign_levels(
    boxes: NDArray[np.float32], size: Size, shapes: Sequence[Size]
) -> NDArray[np.intp]:
    """Assign each RoI `(N,)` the index of the shape in which its area is nearest to 224 x 224 pixels.

    Args:
        boxes: `(N, 4)` in pixels of the original image.
        size: its height and width.
        shapes: height and width of the scaled images; the first wins if several are equally near.
    """
    gains = np.array([(height / size[0]) * (width / size[1]) for height, width in shapes])
    areas = geometry.area(boxes.astype(np.float64))[:, None] * gains
    level: NDArray[np.intp] = np.abs(areas - TARGET_AREA).argmin(axis=1)
    return level


def split_by_level(
    boxes: Sequence[NDArray[np.float32]], sizes: Sequence[Size], levels: Sequence[Preprocessing]
) -> list[LevelRois]:
    """Split the RoIs of each image by the scale at which the network pools them.

    Args:
        boxes: per image `(N, 4)` in its pixels; an image without boxes appears nowhere in the result.
        sizes: per image its height and width.
        levels: the preprocessing at each scale.

    Each RoI appears once. Scales with the same shape, which the cap can cause, become one.
    """
    rois_by_level: list[LevelRois] = []
    for image_index, (rois, size) in enumerate(zip(boxes, sizes, strict=True)):
        shapes = [preprocessing.compute_resized_shape(*size) for preprocessing in levels]
        if len(set(shapes)) == 1:
            if len(rois):
                rois_by_level.append(LevelRois(image_index, shapes[0], np.arange(len(rois))))
            continue
        levels_of_rois = assign_levels(rois, size, shapes)
        for level in np.unique(levels_of_rois):
            rows = np.flatnonzero(levels_of_rois == level)
            rois_by_level.append(LevelRois(image_index, shapes[level], rows))
    return rois_by_level
