"""What a network consists of, as a checkpoint's record stores it. Importing this loads no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, JsonFields, describe_value, is_integer

LARGEST_ROI_SIZE = 64
LARGEST_WIDTH = 65_536
"""Far above any network's: larger numbers are of a damaged record, and would take the memory of a machine."""


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
        if self.roi_size is not None and not 1 <= self.roi_size <= LARGEST_ROI_SIZE:
            raise InvalidConfiguration(
                f"a pooled RoI has {self.roi_size} cells per side, expected 1 to {LARGEST_ROI_SIZE}"
            )
        for name, pair in (("widths", self.fc_widths), ("ranks", self.fc_ranks)):
            if pair is not None and not 1 <= min(pair) <= max(pair) <= LARGEST_WIDTH:
                raise InvalidConfiguration(
                    f"fully connected layers have {name} {pair}, expected 1 to {LARGEST_WIDTH}"
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
            InvalidJson: no classes, unknown fields or values of another type.
            InvalidConfiguration: values out of range.
        """
        stored = JsonFields(fields, "architecture.").without_nulls()
        stored.check_names([field.name for field in dataclasses.fields(cls)])
        return cls(
            classes=tuple(stored.read_texts("classes")),
            backbone=stored.read_text("backbone", cls.backbone),
            roi_size=stored.read_integer("roi_size", default=None),
            fc_widths=_read_pair(stored, "fc_widths"),
            fc_ranks=_read_pair(stored, "fc_ranks"),
            padding=stored.read_text("padding", None),
            freeze_until=stored.read_text("freeze_until", None),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values of all fields."""
        return asdict(self)


def _read_pair(stored: JsonFields, name: str) -> tuple[int, int] | None:
    numbers = stored.read_list(name, None)
    if numbers is None:
        return None
    if len(numbers) != 2 or not all(map(is_integer, numbers)):
        raise InvalidJson(
            f"{stored.path}{name} is {describe_value(numbers)}, expected two integers"
        )
    return numbers[0], numbers[1]
