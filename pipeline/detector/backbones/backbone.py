"""What Fast R-CNN asks of a backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InvalidConfiguration


class Backbone(nn.Module):
    """A trunk over the image and a head over each pooled RoI.

    Parameters keep the names that the pretrained network's own state dict has, apart from `renamed`.
    """

    stride: int
    """Pixels of the image per cell of the feature map."""
    channels: int
    """Channels of the feature map."""
    width: int
    """Length of the head's output."""

    def trunk(self, images: Tensor) -> Tensor:
        """The feature map `(B, channels, h, w)` of images `(B, 3, H, W)`."""
        raise NotImplementedError

    def head(self, pooled: Tensor) -> Tensor:
        """A vector per RoI `(R, width)` from pooled features `(R, channels, roi_size, roi_size)`."""
        raise NotImplementedError

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """The layers under the names that `freeze_until` takes, first layer first."""
        raise NotImplementedError

    def freeze(self, until: str) -> None:
        """Train no stage up to and including `until`, and all after it; `none` trains all.

        Raises:
            InvalidConfiguration: no stage has that name.
        """
        stages = self.stages()
        if until != "none" and until not in stages:
            raise InvalidConfiguration(
                f"there is no stage {until!r} to freeze until; there are none, {', '.join(stages)}"
            )
        frozen = until != "none"
        for name, modules in stages.items():
            for module in modules:
                module.requires_grad_(not frozen)
            if name == until:
                frozen = False

    def renamed(self) -> dict[str, str]:
        """Names of this module's tensors that the pretrained state dict calls otherwise."""
        return {}


def mean_over_cells(cells: Tensor, training: bool) -> Tensor:
    """`(R, C)` from `(R, C, h, w)`.

    In bf16 a pooling took an eighth of the time of `mean`. For training it is a sum: its gradient is a
    view, where those of the pooling and of `mean` are maps of the wrong memory layout.
    """
    if training:
        return cells.flatten(2).sum(2) / cells.shape[2:].numel()
    return functional.avg_pool2d(cells, cells.shape[2:]).flatten(1)


def fully_connected(inputs: int, widths: tuple[int, int], dropout: float) -> nn.Sequential:
    """Two layers with ReLU in the place of fc6 and fc7, from flattened RoIs."""
    layers = nn.Sequential(
        nn.Flatten(),
        nn.Linear(inputs, widths[0]),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(widths[0], widths[1]),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.zeros_(layer.bias)
    return layers
