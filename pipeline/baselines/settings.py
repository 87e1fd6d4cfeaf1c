"""What R-CNN and SPPnet are trained with beside a recipe; importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline import uris
from pipeline.detector.preprocessing import SMALLEST_SIDE
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from pipeline.json_reader import InvalidJson, JsonFields, describe_value, is_integer
from pipeline.option_ranges import check_fields

System = Literal["fast-rcnn", "rcnn", "sppnet", "fast-rcnn-svm"]
"""`fast-rcnn-svm`: SVMs on the features of a trained Fast R-CNN, as in table 8 of its paper."""

BASELINES = ("rcnn", "sppnet", "fast-rcnn-svm")
"""The systems that are trained in stages on stored features."""

LARGEST_WINDOW = 1024
MOST_CELLS = 64


@dataclass(frozen=True)
class BaselineSettings:
    """The numbers of R-CNN (Girshick et al., CVPR 2014) and SPPnet (He et al., ECCV 2014).

    The defaults are R-CNN's, from its paper and its released code, except `fine_tune_steps` and
    `mining_passes` (released: one pass). SPPnet has its own pyramid and scales, but its released code
    regresses boxes with a lambda of 4000 from an IoU of 0.5. Fast R-CNN uses none of them.
    """

    window_size: int = 224
    """R-CNN: side of the network's input that a window is warped to, in pixels (released code: 227)."""
    window_context: int = 16
    """R-CNN: pixels of the warped window around the proposal that show its surroundings."""
    pyramid: tuple[int, ...] = (6, 3, 2, 1)
    """SPPnet: cells per side of each level of the spatial pyramid."""
    scales: tuple[int, ...] = (480, 576, 688, 864, 1200)
    """SPPnet: shorter sides of the scaled image, in pixels; a window is pooled where its area is nearest to
    224 x 224."""
    scale_cap: int = 2000
    """SPPnet: longest side of a scaled image, in pixels."""
    fine_tune_steps: int = 2000
    """Steps of fine-tuning, each with `windows_per_step` windows from all images."""
    windows_per_step: int = 128
    """Windows of a step; the recipe's foreground fraction (0.25: 32 of 128) shows objects."""
    svm_c: float = 0.001
    """C of the SVMs, for features scaled to a mean norm of 20."""
    svm_bias: float = 10.0
    """The constant feature that carries the SVM's bias (liblinear's -B)."""
    svm_positive_weight: float = 2.0
    """Weight of a positive's loss."""
    svm_negative_iou: float = 0.3
    """A window is a negative of a class if its IoU with all its objects is below this."""
    mining_passes: int = 2
    """Passes over all windows for hard negatives; they end earlier if a pass adds none."""
    ridge: float = 1000.0
    """lambda of the box regressors."""
    regression_iou: float = 0.6
    """A proposal trains a box regressor if its IoU with an object is above this."""
    images_per_part: int = 8
    """Images in a part of stored features: 2000 windows of 1280 floats take 10 MB per image."""

    def __post_init__(self) -> None:
        check_fields(
            self,
            *("fine_tune_steps", "windows_per_step", "mining_passes", "images_per_part"),
            at_least=1,
        )
        check_fields(self, "window_size", at_least=SMALLEST_SIDE, at_most=LARGEST_WINDOW)
        check_fields(self, "svm_c", "svm_bias", "svm_positive_weight", "ridge", above=0)
        check_fields(self, "svm_negative_iou", "regression_iou", at_least=0, at_most=1)
        check_fields(self, "window_context", at_least=0)
        if 2 * self.window_context >= self.window_size:
            raise InvalidConfiguration(
                f"--window-context is {self.window_context}, expected less than half of --window-size "
                f"({self.window_size})"
            )
        check_pyramid(self.pyramid)
        if not self.scales or min(self.scales) < SMALLEST_SIDE or max(self.scales) > self.scale_cap:
            raise InvalidConfiguration(
                f"--scales are {self.scales}, expected sides from {SMALLEST_SIDE} to --scale-cap "
                f"({self.scale_cap})"
            )

    def as_settings(self) -> dict[str, Any]:
        """The settings as JSON values, without `images_per_part`, which changes no number."""
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del values["images_per_part"]
        return values

    def describe_system(self, system: System) -> RegionSettings:
        """What a checkpoint records of the system."""
        if system == "rcnn":
            return RegionSettings(system, self.window_size, self.window_context)
        if system == "sppnet":
            return RegionSettings(system, 0, 0, self.pyramid, self.scales, self.scale_cap)
        return RegionSettings(system)


def check_pyramid(levels: tuple[int, ...]) -> None:
    """Reject a spatial pyramid without levels, or with a level of no cell or too many.

    Raises:
        InvalidConfiguration: it is one of these.
    """
    if not levels or not all(1 <= cells <= MOST_CELLS for cells in levels):
        raise InvalidConfiguration(
            f"--pyramid is {levels}, expected cells per side from 1 to {MOST_CELLS}"
        )


@dataclass(frozen=True)
class RegionSettings:
    """How a checkpoint computes the features of a proposal: the object `system` of its record."""

    system: System
    window_size: int = 0
    """R-CNN: side of the warped window, in pixels."""
    window_context: int = 0
    """R-CNN: pixels of context on each side of it."""
    pyramid: tuple[int, ...] = ()
    """SPPnet: cells per side of each level."""
    scales: tuple[int, ...] = ()
    """SPPnet: shorter sides of the scaled image, in pixels."""
    scale_cap: int = 0
    """SPPnet: longest side of a scaled image, in pixels."""

    def __post_init__(self) -> None:
        if self.system not in BASELINES:
            raise InvalidConfiguration(
                f"the system is {self.system!r}, expected {', '.join(BASELINES)}"
            )
        # The ranges are those of the options.
        if self.system == "rcnn":
            BaselineSettings(window_size=self.window_size, window_context=self.window_context)
        elif self.system == "sppnet":
            BaselineSettings(pyramid=self.pyramid, scales=self.scales, scale_cap=self.scale_cap)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RegionSettings:
        """Read the settings from a checkpoint's record.

        Raises:
            InvalidJson: unknown fields, or values of another type.
            InvalidConfiguration: values out of range.
        """
        stored = JsonFields(fields, "system.")
        stored.check_names(
            ["name", "window_size", "window_context", "pyramid", "scales", "scale_cap"]
        )
        return cls(
            stored.read_text("name"),
            stored.read_integer("window_size", default=0),
            stored.read_integer("window_context", default=0),
            _read_integers(stored, "pyramid"),
            _read_integers(stored, "scales"),
            stored.read_integer("scale_cap", default=0),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values of the fields that the system has."""
        values = asdict(self)
        name = values.pop("system")
        return {"name": name} | {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in values.items()
            if value
        }


def _read_integers(stored: JsonFields, name: str) -> tuple[int, ...]:
    numbers = stored.read_list(name, [])
    if not all(map(is_integer, numbers)):
        raise InvalidJson(
            f"{stored.path}{name} is {describe_value(numbers)}, expected a list of integers"
        )
    return tuple(numbers)


def read_region_settings(
    system: Mapping[str, Any] | None, checkpoint_uri: str
) -> RegionSettings | None:
    """The system that a checkpoint's record names, or None if it is Fast R-CNN.

    Raises:
        InvalidCheckpoint: the system is unknown, or its numbers are out of range.
    """
    if system is None:
        return None
    try:
        return RegionSettings.from_json(system)
    except (InvalidJson, InvalidConfiguration) as error:
        raise InvalidCheckpoint(
            f"{uris.redact_uri(checkpoint_uri)} is a checkpoint of an unknown system: {error}"
        ) from error
