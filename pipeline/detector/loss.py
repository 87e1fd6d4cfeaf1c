"""The multi-task loss (Fast R-CNN, section 2.3, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.detector.loss_names import TOTAL


def multi_task_loss(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    normalizer: float | Tensor | None = None,
    localisation_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Log loss over classes, and smooth L1 (beta 1) over the deltas of the true class.

    A part that is added here appears in the training log, TensorBoard and the progress line by its name.

    Args:
        logits: `(R, K + 1)`.
        deltas: `(R, 4 (K + 1))`, of the normalised targets.
        labels: int64 `(R,)`, 0 for background, whose deltas do not count.
        targets: `(R, 4)`, normalised; the rows of background RoIs are ignored.
        normalizer: divides both sums; None takes R, the number of sampled RoIs (the released code).
            With several workers it is the mean of R over them, so that all RoIs weigh the same.
        localisation_weight: lambda; 0 trains classification alone.

    Returns:
        Scalars by name: `total`, which training minimises, and its parts before weighting, `class` and
        `box`.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits, deltas = logits.float(), deltas.float()
    divisor = max(len(labels), 1) if normalizer is None else normalizer
    classification = functional.cross_entropy(logits, labels, reduction="sum") / divisor
    foreground = torch.nonzero(labels > 0).squeeze(1)
    predicted = deltas.view(len(labels), deltas.shape[1] // 4, 4)[foreground, labels[foreground]]
    expected = targets[foreground].to(predicted.dtype)
    localisation = functional.smooth_l1_loss(predicted, expected, reduction="sum") / divisor
    total = classification + localisation_weight * localisation
    return {TOTAL: total, "class": classification, "box": localisation}
