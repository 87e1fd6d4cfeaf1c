"""A small network that trains from scratch in a minute or two, for the demo and the tests."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, build_fully_connected

WIDTHS = (16, 32, 64)


class Tiny(Backbone):
    """Three strided convolutions, each followed by an unstrided one; then two fully connected layers."""

    stride = 8
    channels = WIDTHS[-1]

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.blocks = nn.ModuleList(
            _build_block(inputs[i], inputs[i + 1]) for i in range(len(WIDTHS))
        )
        widths = fc_widths or (128, 128)
        self.fc = build_fully_connected(self.channels * roi_size**2, widths, dropout=0.0)
        self.width = widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, 64, h, w)` at stride 8."""
        for block in self.blocks:
            images = block(images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, 128)`, or the width in `fc_widths`."""
        vectors: Tensor = self.fc(pooled)
        return vectors

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `block0` to `block2` and `fc`."""
        blocks = {f"block{index}": [block] for index, block in enumerate(self.blocks)}
        return {**blocks, "fc": [self.fc]}


def _build_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )
