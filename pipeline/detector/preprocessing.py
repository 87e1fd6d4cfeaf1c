"""From a decoded image to a network's input: size, channel order, scale, mean, deviation.

These settings belong to the weights and are stored with them. Importing this module loads no torch, so
that CPU tasks can resize and a driver can read the settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, imaging
from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import JsonFields

if TYPE_CHECKING:
    import torch

SMALLEST_SIDE = 32  # in pixels: the strided layers of some trunks have no output for smaller images
LARGEST_SIDE = 32_768  # in pixels: an image of this size takes 3 GB, and its features far more


@dataclass(frozen=True)
class Preprocessing:
    """How an image is resized and normalised: (channel * scale - mean) / std."""

    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels in the network's input, in mean and in std."""
    scale: float = 1 / 255
    """Factor of the stored values 0..255, applied first."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted per channel after scaling."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divisor per channel, applied last."""
    short_side: int = 600
    """Pixels of the shorter side after resizing (Fast R-CNN, section 5.2)."""
    max_side: int = 1000
    """Maximum of the longer side in pixels, even if the shorter one then falls below `short_side`."""
    shift_rois_first: bool = False
    """Take the last pixel of a RoI in the original image and scale it, as the released code does; else scale
    the RoI and take the last pixel of the result."""

    def __post_init__(self) -> None:
        if self.channel_order not in ("RGB", "BGR"):
            raise InvalidConfiguration(
                f"channel order is {self.channel_order!r}, expected RGB or BGR"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise InvalidConfiguration(
                f"mean is {self.mean} and std {self.std}, expected one number per channel, std positive"
            )
        if not np.isfinite([self.scale, *self._compute_gain(), *self._compute_shift()]).all():
            raise InvalidConfiguration(
                f"scale {self.scale}, mean {self.mean} and std {self.std} give values that are not finite"
            )
        if not SMALLEST_SIDE <= self.short_side <= self.max_side <= LARGEST_SIDE:
            raise InvalidConfiguration(
                f"short side {self.short_side} and cap {self.max_side} of the images: expected "
                f"{SMALLEST_SIDE} <= short side <= cap <= {LARGEST_SIDE}"
            )

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Read the settings from a checkpoint's JSON.

        Raises:
            InvalidJson: missing or unknown fields, or values of another type.
            InvalidConfiguration: values out of range.
        """
        stored = JsonFields(fields, "preprocessing.")
        stored.check_names([field.name for field in dataclasses.fields(cls)])
        return cls(
            channel_order=stored.read_text("channel_order", cls.channel_order),
            scale=stored.read_number("scale", cls.scale),
            mean=_to_triple(stored.read_numbers("mean", 3)),
            std=_to_triple(stored.read_numbers("std", 3)),
            short_side=stored.read_integer("short_side", default=cls.short_side),
            max_side=stored.read_integer("max_side", default=cls.max_side),
            shift_rois_first=stored.read_flag("shift_rois_first", cls.shift_rois_first),
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `shift_rois_first` only if set, so that older checkpoints keep their digest."""
        fields = asdict(self)
        if not self.shift_rois_first:
            del fields["shift_rois_first"]
        return fields

    def compute_resized_shape(
        self, height: int, width: int, *, short_side: int | None = None, max_side: int | None = None
    ) -> tuple[int, int]:
        """Compute height and width after resizing; a thin image is stretched to at least 32 pixels.

        Args:
            height: of the original image, in pixels.
            width: of the original image, in pixels.
            short_side: replaces the weights' own size, for multi-scale training and testing.
            max_side: replaces the weights' own cap.
        """
        shorter, longer = min(height, width), max(height, width)
        factor = min(
            (short_side or self.short_side) / shorter, (max_side or self.max_side) / longer
        )
        return max(SMALLEST_SIDE, round(height * factor)), max(SMALLEST_SIDE, round(width * factor))

    def resize(
        self,
        image: NDArray[np.uint8],
        *,
        short_side: int | None = None,
        max_side: int | None = None,
    ) -> NDArray[np.uint8]:
        """Resize an image `(H, W, 3)` for the network; the result is still uint8 RGB `(h, w, 3)`."""
        height, width = self.compute_resized_shape(
            *image.shape[:2], short_side=short_side, max_side=max_side
        )
        return imaging.resize(image, width, height)

    def project_rois(
        self, boxes: NDArray[np.floating], size: tuple[int, int], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Project boxes `(N, 4)` from the original to the resized image.

        RoI pooling takes their last pixels, x2 - 1 and y2 - 1, from the result.

        Args:
            boxes: half open, in pixels of the original image.
            size: height and width of the original image.
            shape: height and width of the resized image.
        """
        factors = shape[1] / size[1], shape[0] / size[0]
        if self.shift_rois_first:
            last = np.array([0, 0, 1, 1], np.float64)
            boxes = geometry.scale(boxes - last, *factors) + last
        else:
            boxes = geometry.scale(boxes, *factors)
        return boxes.astype(np.float32)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise resized uint8 RGB `(B, h, w, 3)` to float32 `(B, 3, h, w)`, channels last in memory.

        It computes on the device of `images`: a transfer to a GPU then moves uint8, a quarter of the bytes.
        """
        from pipeline.detector.host_transfer import move_array  # noqa: PLC0415  loads torch

        gain, shift = self._compute_gain(), self._compute_shift()
        if self.channel_order == "BGR":
            images = images.flip(-1)
        values = images.float()
        values.mul_(move_array(gain, values.device)).add_(move_array(shift, values.device))
        return values.permute(0, 3, 1, 2)

    def _compute_gain(self) -> NDArray[np.float32]:
        with np.errstate(
            all="ignore"
        ):  # whether the values are finite is checked once, at the start
            return np.float32(self.scale) / np.asarray(self.std, np.float32)

    def _compute_shift(self) -> NDArray[np.float32]:
        with np.errstate(all="ignore"):
            mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
            shift: NDArray[np.float32] = np.divide(-mean, std, dtype=np.float32)
            return shift

    def __call__(
        self,
        image: NDArray[np.uint8],
        *,
        short_side: int | None = None,
        max_side: int | None = None,
    ) -> torch.Tensor:
        """Resize and normalise a decoded uint8 RGB image `(H, W, 3)` to float32 `(3, h, w)`."""
        import torch  # noqa: PLC0415  a driver reads these settings without torch

        resized = self.resize(image, short_side=short_side, max_side=max_side)
        return self.normalise(torch.from_numpy(np.array(resized))[None])[0]


def _to_triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


TORCHVISION = Preprocessing()
"""Of torchvision's ImageNet weights."""

TENSORFLOW = Preprocessing(scale=1 / 127.5, mean=(1.0, 1.0, 1.0), std=(1.0, 1.0, 1.0))
"""Of TensorFlow's MobileNets: values from -1 to 1."""

CAFFE = Preprocessing(
    channel_order="BGR", scale=1.0, mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0)
)
"""The released Fast R-CNN models' BGR pixel means."""

PREPROCESSING_BY_NAME = {"torchvision": TORCHVISION, "tensorflow": TENSORFLOW, "caffe": CAFFE}
"""The settings by the framework of the pretrained weights."""

FROM_SCRATCH = Preprocessing(
    mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), short_side=240, max_side=400
)
"""For networks trained from scratch on small images."""
