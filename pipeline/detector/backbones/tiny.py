"""A small network that is trained from scratch in a minute or two, for the demo and the tests."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, fully_connected

WIDTHS = (16, 32, 64)


class Tiny(Backbone):
    """Three strided convolutions, each followed by a plain one; then two fully connected layers."""

    stride = 8
    channels = WIDTHS[-1]

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.blocks = nn.ModuleList(_block(inputs[i], inputs[i + 1]) for i in range(len(WIDTHS)))
        widths = fc_widths or (128, 128)
        self.fc = fully_connected(self.channels * roi_size**2, widths, dropout=0.0)
        self.width = widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """`(B, 64, h, w)` at stride 8."""
        for block in self.blocks:
            images = block(images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """`(R, 128)`."""
        vectors: Tensor = self.fc(pooled)
        return vectors

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """`block0` to `block2` and `fc`."""
        named = {f"block{index}": [block] for index, block in enumerate(self.blocks)}
        return {**named, "fc": [self.fc]}


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )
