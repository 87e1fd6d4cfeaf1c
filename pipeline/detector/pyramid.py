"""Multi-scale testing (Fast R-CNN, sections 4.2 and 5.4): an image pyramid, and each RoI's level of it.

Each RoI is pooled from the scale where its area is nearest to 224 x 224 pixels, as in SPPnet (He et al.,
ECCV 2014) and the released code. Importing this module does not import torch.
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
"""In scaled pixels: the size at which the pretrained networks saw objects."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Pyramid:
    """The scales at which images are tested, in place of the checkpoint's single one."""

    scales: tuple[int, ...] = ()
    """Shortest sides in pixels at which an image is looked at, each RoI at the one where its area is
    nearest to 224 x 224 (the paper: 480 576 688 864 1200); none: the checkpoint's single one."""
    scale_cap: int | None = None
    """No side of a scaled image is longer, in pixels (the paper: 2000 with several scales); unset:
    the checkpoint's own."""

    def levels(self, own: Preprocessing) -> tuple[Preprocessing, ...]:
        """The preprocessing at each scale.

        Args:
            own: of the checkpoint, whose size counts where nothing else is asked for.

        Raises:
            InvalidConfiguration: a scale below 32 pixels or above the cap.
        """
        cap = own.max_side if self.scale_cap is None else self.scale_cap
        try:
            return tuple(
                replace(own, short_side=side, max_side=cap)
                for side in self.scales or (own.short_side,)
            )
        except InvalidConfiguration as error:
            raise InvalidConfiguration(f"--scales, --scale-cap: {error}") from error


class Part(NamedTuple):
    """The RoIs of one image that are pooled from it at one scale."""

    image: int
    """Index of the image."""
    shape: Size
    """Height and width of the scaled image."""
    rows: NDArray[np.intp]
    """`(M,)`: which of the image's RoIs, in order."""


def nearest(boxes: NDArray[np.float32], size: Size, shapes: Sequence[Size]) -> NDArray[np.intp]:
    """Per RoI `(N,)` the index of the shape in which its area is nearest to 224 x 224 pixels.

    Args:
        boxes: `(N, 4)` in pixels of the original image.
        size: its height and width.
        shapes: height and width of the scaled images; of equally near ones the first is taken.
    """
    gains = np.array([(height / size[0]) * (width / size[1]) for height, width in shapes])
    areas = geometry.area(boxes.astype(np.float64))[:, None] * gains
    level: NDArray[np.intp] = np.abs(areas - TARGET_AREA).argmin(axis=1)
    return level


def parts(
    boxes: Sequence[NDArray[np.float32]], sizes: Sequence[Size], levels: Sequence[Preprocessing]
) -> list[Part]:
    """The work of a predictor: each image at each scale that one of its RoIs is nearest at.

    Args:
        boxes: per image `(N, 4)` in its pixels; one without boxes is no work.
        sizes: per image its height and width.
        levels: the preprocessing at each scale.

    An image's parts hold each of its RoIs once; scales that come to the same shape, as the cap lets
    them, are one part.
    """
    made: list[Part] = []
    for image, (rois, size) in enumerate(zip(boxes, sizes, strict=True)):
        shapes = [level.resized_shape(*size) for level in levels]
        of_roi = nearest(rois, size, shapes)
        for index in np.unique(of_roi):
            made.append(Part(image, shapes[index], np.flatnonzero(of_roi == index)))
    return made
