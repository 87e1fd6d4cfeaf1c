"""What a network consists of, as a checkpoint's record stores it. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True)
class Architecture:
    """A Fast R-CNN network without its weights."""

    classes: tuple[str, ...]
    """Names of the object classes; the network has one more output, background, at index 0."""
    backbone: str = "mobilenet_v2"
    """A name in `backbones.catalog`."""
    roi_size: int | None = None
    """Cells per side of a pooled RoI; None uses the backbone's default."""
    fc_widths: tuple[int, int] | None = None
    """Replaces the backbone's head with two fully connected layers of these widths."""
    fc_ranks: tuple[int, int] | None = None
    """Ranks to which `svd` factorises fc6 and fc7; None leaves them whole."""
    padding: str | None = None
    """`same` pads strided convolutions as TensorFlow does, `symmetric` as PyTorch does; None uses the
    backbone's default. The pretrained weights decide which one is right."""
    freeze_until: str | None = None
    """The last stage that is not trained; `none` trains all, None uses the backbone's default."""

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise InvalidConfiguration(f"expected one or more distinct classes, got {self.classes}")
        if self.backbone not in BACKBONES:
            names = ", ".join(BACKBONES)
            raise InvalidConfiguration(f"no backbone {self.backbone!r}, expected one of {names}")
        if self.roi_size is not None and self.roi_size < 1:
            raise InvalidConfiguration(
                f"a pooled RoI has {self.roi_size} cells per side, expected 1 or more"
            )
        if self.fc_widths is not None and min(self.fc_widths) < 1:
            raise InvalidConfiguration(
                f"fully connected layers have widths {self.fc_widths}, expected 1 or more"
            )
        choices = BACKBONES[self.backbone].paddings
        if self.padding is not None and self.padding not in choices:
            raise InvalidConfiguration(
                f"padding is {self.padding!r}, {self.backbone} supports {' or '.join(choices)}"
            )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Architecture:
        """Read the architecture from a checkpoint's JSON.

        A missing field has its default: fields may be added without a new version.

        Raises:
            TypeError, KeyError, InvalidConfiguration: no classes, unknown fields or invalid values.
        """
        values = {**fields, "classes": tuple(fields["classes"])}
        for name in ("fc_widths", "fc_ranks"):
            if values.get(name) is not None:
                values[name] = (int(values[name][0]), int(values[name][1]))
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values of all fields."""
        return asdict(self)
