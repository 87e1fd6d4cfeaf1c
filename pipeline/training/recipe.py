"""A recipe: every number that decides how Fast R-CNN is trained, with the paper's values as defaults.

Section numbers are those of Girshick, "Fast R-CNN" (ICCV 2015); "released code" is the author's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Literal

from pipeline.detector.preprocessing import SMALLEST_SIDE
from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; counted in epochs, so that it suits datasets of any size."""

    network: str = "vgg16"
    """Backbone."""
    freeze_until: str | None = None
    """The last stage of the trunk that keeps its weights; `none` trains all, unset is the network's own."""
    roi_size: int | None = None
    """Cells per side of a pooled RoI; unset: the network's own."""
    fc_widths: tuple[int, int] | None = None
    """Two fully connected layers of these widths as the head; unset: the network's own head."""
    preprocessing: Literal["torchvision", "tensorflow", "caffe"] | None = None
    """What the weights expect of an image: RGB with ImageNet's mean and deviation, RGB from -1 to 1, or
    BGR from 0 to 255 less Caffe's means; unset: torchvision's where it knows the weights by name, else
    what the network usually has."""
    padding: Literal["same", "symmetric"] | None = None
    """Of strided convolutions, as TensorFlow or PyTorch pads them; unset: likewise."""

    short_sides: tuple[int, ...] = (600,)
    """Shortest side of an image in pixels; of several, each image takes one at random each time
    (section 4.2: 480 576 688 864 1200 with a max_side of 2000), and detection the middle one."""
    max_side: int = 1000
    """Cap on the longest side in pixels; it wins over the shortest."""
    flip: float = 0.5
    """Probability of mirroring an image left to right (section 2.3)."""
    use_empty_images: bool = True
    """Take background RoIs from images that hold no object; else leave those images out."""

    images_per_step: int = 2
    """N, images per step and worker (section 2.3)."""
    rois_per_step: int = 128
    """R, RoIs per step and worker, R / N from each image."""
    accumulate: int = 1
    """Parts in which a step's images go through the network, one after the other, to save memory."""
    max_proposals: int = 2000
    """Best proposals of an image that are sampled from (section 4.1)."""
    min_proposal_side: float = 0.0
    """Leave out proposals with a side, in pixels of the original image, below this."""
    foreground_fraction: float = 0.25
    """Share of an image's RoIs that may be foreground."""
    foreground_iou: float = 0.5
    """A RoI is foreground from this overlap with an object on."""
    background_iou_low: float = 0.1
    """A RoI is background from this largest overlap on: below it the example is too easy."""
    background_iou_high: float = 0.5
    """A RoI is background below this overlap."""

    box_loss_weight: float = 1.0
    """lambda of equation 1; 0 trains the classifier alone, and detections keep the proposals' boxes."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or AdamW."""
    learning_rate: float = 0.001
    """Of new layers."""
    pretrained_learning_rate: float | None = None
    """Of layers that came with pretrained weights; unset: the same as of new layers."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 0.0005
    """Of all weights; decoupled in AdamW."""
    bias_rate_factor: float = 2.0
    """Biases learn at so many times the rate (released code)."""
    decay_biases: bool = False
    """Decay biases too (the paper's text, not its code)."""
    gradient_clip: float | None = None
    """Scale gradients down to this norm where they exceed it; unset: never."""

    epochs: float = 16.0
    """Passes over the images; the paper's 40k steps of 2 images over VOC 2007 trainval."""
    box_epochs: float = 0.0
    """Passes after these in which the box layer alone is trained on the network as it is then: with a
    box_loss_weight of 0 the stage-wise training of table 6."""
    iterations: int | None = None
    """Steps, in place of epochs; unset: as many as `epochs` come to."""
    schedule: Literal["step", "cosine"] = "step"
    """Learning rate: cut once, or falling along half a cosine to zero."""
    step_at: float = 0.75
    """Where in training the step schedule cuts the rate (30k of 40k)."""
    step_factor: float = 0.1
    """What the step schedule multiplies the rate with."""
    warm_up: float = 0.0
    """Share of training in which the rate rises linearly from near zero."""
    scale_rate_with_workers: bool = False
    """Multiply the learning rates by what all workers' images of a step are more than the recipe's."""

    channels_last: bool = True
    """Memory layout of feature maps; 1.2 to 1.5 times as fast on CPUs with AVX512 or AMX."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: autocast in the forward pass; frozen layers are computed in bf16 altogether on CPUs, and
    gradients are scaled in fp16. `auto` is bf16 where the device computes in it, else fp32."""

    def __post_init__(self) -> None:
        for name in ("images_per_step", "rois_per_step", "accumulate", "max_proposals", "max_side"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        self._require(
            len(self.short_sides) > 0
            and min(self.short_sides) >= SMALLEST_SIDE
            and max(self.short_sides) <= self.max_side,
            "short_sides",
            f"sides from {SMALLEST_SIDE} up to max_side ({self.max_side})",
        )
        self._require(
            self.rois_per_step % self.images_per_step == 0,
            "rois_per_step",
            f"a multiple of images_per_step ({self.images_per_step})",
        )
        self._require(
            self.images_per_step % self.accumulate == 0,
            "accumulate",
            f"a divisor of images_per_step ({self.images_per_step})",
        )
        for name in ("flip", "foreground_fraction", "foreground_iou", "warm_up", "step_at"):
            self._require(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        self._require(
            round(self.foreground_fraction * self.rois_per_image) >= 1,
            "foreground_fraction",
            f"enough for one of the {self.rois_per_image} RoIs of an image to be foreground",
        )
        low, high = self.background_iou_low, self.background_iou_high
        self._require(0 <= low < high <= 1, "background_iou_low", "below background_iou_high")
        self._require(self.epochs > 0, "epochs", "above 0")
        self._require(self.iterations is None or self.iterations >= 1, "iterations", "at least 1")
        self._require(self.learning_rate > 0, "learning_rate", "above 0")
        for name in (
            "pretrained_learning_rate",
            "bias_rate_factor",
            "step_factor",
            "weight_decay",
            "momentum",
            "box_loss_weight",
            "min_proposal_side",
            "box_epochs",
        ):
            value = getattr(self, name)
            self._require(value is None or value >= 0, name, "at least 0")
        clip = self.gradient_clip
        self._require(clip is None or clip > 0, "gradient_clip", "above 0")

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise InvalidConfiguration(
                f"recipe field {name} is {getattr(self, name)}; expected {expected}"
            )

    @property
    def rois_per_image(self) -> int:
        """R / N."""
        return self.rois_per_step // self.images_per_step

    def steps(self, images: int, workers: int) -> tuple[int, int]:
        """Steps in which all is trained, then steps of the box layer alone.

        Args:
            images: images per epoch.
            workers: how many take `images_per_step` each in a step.
        """
        epoch = images / (self.images_per_step * workers)
        joint = self.iterations or max(1, ceil(self.epochs * epoch))
        return joint, ceil(self.box_epochs * epoch)

    def divided(self, most_workers: int) -> tuple[Recipe, int]:
        """The same step divided among workers: each one's recipe, and how many there are.

        No more images go through the network at once than `accumulate` allows.

        Args:
            most_workers: at most so many; the largest number that divides the step's images is taken.
        """
        fits = [n for n in range(1, most_workers + 1) if self.images_per_step % n == 0]
        workers = fits[-1]
        images, together = self.images_per_step // workers, self.images_per_step // self.accumulate
        parts = next(n for n in range(1, images + 1) if images % n == 0 and images // n <= together)
        return (
            replace(
                self,
                images_per_step=images,
                rois_per_step=self.rois_per_step // workers,
                accumulate=parts,
            ),
            workers,
        )

    def as_settings(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
