"""The interface of a backbone, and the layers that backbones share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import InvalidConfiguration


class Backbone(nn.Module, ABC):
    """A trunk over the image and a head over each pooled RoI.

    Parameters have the names of the pretrained network's state dict, except those in
    `get_pretrained_names`.
    """

    stride: int
    """Pixels of the image per cell of the feature map."""
    channels: int
    """Channels of the feature map."""
    width: int
    """Length of the head's output."""

    @abstractmethod
    def trunk(self, images: Tensor) -> Tensor:
        """Compute the feature map `(B, channels, h, w)` of images `(B, 3, H, W)`."""

    @abstractmethod
    def head(self, pooled: Tensor) -> Tensor:
        """Compute vectors `(R, width)` from pooled features `(R, channels, roi_size, roi_size)`."""

    @abstractmethod
    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the layers by the stage names that `freeze_until` accepts, first layer first."""

    def freeze(self, until: str) -> None:
        """Freeze all stages up to and including `until`, and train the others; `none` trains all.

        Raises:
            InvalidConfiguration: no stage has that name.
        """
        stages = self.get_stages()
        if until != "none" and until not in stages:
            raise InvalidConfiguration(
                f"no stage {until!r} to freeze until, expected none, {', '.join(stages)}"
            )
        is_frozen = until != "none"
        for name, modules in stages.items():
            for module in modules:
                module.requires_grad_(not is_frozen)
            if name == until:
                is_frozen = False

    def get_pretrained_names(self) -> dict[str, str]:
        """Return the names in the pretrained state dict of the tensors that have another name here."""
        return {}


def average_cells(cells: Tensor, training: bool) -> Tensor:
    """Average `(R, C, h, w)` to `(R, C)`.

    In bf16 a pooling took an eighth of the time of `mean`. Training uses a sum: its gradient is a view,
    while the gradients of the pooling and of `mean` are maps of the wrong memory layout.
    """
    if training:
        return cells.flatten(2).sum(2) / cells.shape[2:].numel()
    return functional.avg_pool2d(cells, cells.shape[2:]).flatten(1)


def build_fully_connected(inputs: int, widths: tuple[int, int], dropout: float) -> nn.Sequential:
    """Build two layers with ReLU, from flattened RoIs, that take the place of fc6 and fc7."""
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
