"""The head's outputs for the proposals of one image, which may come from several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.host_transfer import move_array


class HeadOutputs(NamedTuple):
    """Outputs for some of an image's proposals."""

    rows: NDArray[np.intp]
    """`(M,)`: which proposals, ascending."""
    scores: Tensor
    """`(M, K + 1)`, softmax."""
    deltas: Tensor
    """`(M, K + 1, 4)`."""


def join_outputs(parts: Sequence[HeadOutputs]) -> tuple[Tensor, Tensor]:
    """Join scores `(R, K + 1)` and deltas `(R, K + 1, 4)` in the order of the proposals."""
    if len(parts) == 1:
        return parts[0].scores, parts[0].deltas
    rows = np.concatenate([part.rows for part in parts])
    order = move_array(np.argsort(rows), parts[0].scores.device)
    return (
        torch.cat([part.scores for part in parts])[order],
        torch.cat([part.deltas for part in parts])[order],
    )
