"""What a network is made of, as a checkpoint's JSON holds it. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True)
class Architecture:
    """A Fast R-CNN network, up to its weights."""

    classes: tuple[str, ...]
    """Names of the object classes; the network has one output more, background, at index 0."""
    backbone: str = "mobilenet_v2"
    """A name of `backbones.catalog`."""
    roi_size: int | None = None
    """Cells per side of a pooled RoI; None takes the backbone's own."""
    fc_widths: tuple[int, int] | None = None
    """Replaces the backbone's own head by two fully connected layers of these widths."""
    fc_ranks: tuple[int, int] | None = None
    """Ranks to which fc6 and fc7 are factorised (`svd`); None leaves them whole."""
    padding: str | None = None
    """`same` pads strided convolutions as TensorFlow does, `symmetric` as PyTorch; None takes the
    backbone's own. Which one is right depends on where the pretrained weights come from."""
    freeze_until: str | None = None
    """The last stage that is not trained; `none` trains all, None takes the backbone's own."""

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise InvalidConfiguration(f"classes must be distinct and not none: {self.classes}")
        if self.backbone not in BACKBONES:
            known = ", ".join(BACKBONES)
            raise InvalidConfiguration(f"there is no backbone {self.backbone!r}; there are {known}")
        if self.roi_size is not None and self.roi_size < 1:
            raise InvalidConfiguration(f"a pooled RoI of {self.roi_size} cells per side")
        if self.fc_widths is not None and min(self.fc_widths) < 1:
            raise InvalidConfiguration(f"fully connected layers of widths {self.fc_widths}")
        choices = BACKBONES[self.backbone].paddings
        if self.padding is not None and self.padding not in choices:
            raise InvalidConfiguration(
                f"padding {self.padding!r} with {self.backbone}, which has {' or '.join(choices)}"
            )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Architecture:
        """The architecture from a checkpoint's JSON.

        Raises:
            TypeError, KeyError, InvalidConfiguration: no classes, unknown or senseless fields.

        A field that is absent has its default: fields may be added without a new version.
        """
        told = {**fields, "classes": tuple(fields["classes"])}
        for name in ("fc_widths", "fc_ranks"):
            if told.get(name) is not None:
                told[name] = (int(told[name][0]), int(told[name][1]))
        return cls(**told)

    def to_json(self) -> dict[str, Any]:
        """JSON values of all fields."""
        return asdict(self)
