"""What analyses know of images beside their matches: id and size, in the order of the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageFacts:
    """P consecutive images."""

    first_row: int
    """The first image's row in the manifest."""
    image_ids: pa.ChunkedArray
    """`(P,)` strings."""
    width: NDArray[np.float64]
    """`(P,)` pixels; NaN if unknown."""
    height: NDArray[np.float64]
    """`(P,)`"""

    def __len__(self) -> int:
        return len(self.width)

    def find_positions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of images by their rows in the manifest."""
        positions = rows - self.first_row
        assert not len(rows) or (positions.min() >= 0 and positions.max() < len(self)), (
            "other images"
        )
        return positions


def read_image_facts(
    results: pa.Table, first_row: int, manifest: pa.Table | None = None
) -> ImageFacts:
    """Read the facts of a part of detections.

    Args:
        results: its columns `image_id`, `width` and `height`.
        first_row: the first image's row in the manifest.
        manifest: the images' rows of the manifest, whose sizes stand in for those that `results` lacks.
    """
    sides = {}
    for name in ("width", "height"):
        column = results.column(name)
        if manifest is not None:
            column = pc.coalesce(column.combine_chunks(), manifest.column(name).combine_chunks())
        sides[name] = _read_side(column)
    return ImageFacts(first_row, results.column("image_id"), **sides)


def _read_side(column: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values
