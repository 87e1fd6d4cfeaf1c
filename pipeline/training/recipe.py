"""A recipe: every number that decides how Fast R-CNN is trained, with the paper's values as defaults.

Section numbers are those of Girshick, "Fast R-CNN" (ICCV 2015); "released code" is the author's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Literal

from pipeline.detector.preprocessing import SMALLEST_SIDE
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the length is in epochs, so that it suits datasets of any size."""

    network: str = "vgg16"
    """Backbone."""
    freeze_until: str | None = None
    """The last stage of the trunk to freeze; `none` trains all stages; unset: the network's default."""
    roi_size: int | None = None
    """Cells per side of a pooled RoI; unset: the network's default."""
    fc_widths: tuple[int, int] | None = None
    """Two fully connected layers of these widths as the head; unset: the network's default head."""
    preprocessing: Literal["torchvision", "tensorflow", "caffe"] | None = None
    """How the weights expect an image: RGB with ImageNet's mean and deviation, RGB from -1 to 1, or BGR
    from 0 to 255 minus Caffe's means; unset: torchvision's for weights that it knows by name, else the
    network's default."""
    padding: Literal["same", "symmetric"] | None = None
    """Padding of strided convolutions, as in TensorFlow or PyTorch; unset: chosen like preprocessing."""

    short_sides: tuple[int, ...] = (600,)
    """Shortest side of an image in pixels. Of several sides, training draws one per image and epoch
    (section 4.2: 480 576 688 864 1200 with a max_side of 2000), and detection takes the middle one."""
    max_side: int = 1000
    """Cap on the longest side in pixels; it takes precedence over the shortest side."""
    flip: float = 0.5
    """Probability of mirroring an image left to right (section 2.3)."""
    use_empty_images: bool = True
    """Train on images without objects too. They teach something only if background may overlap no object:
    with a background_iou_low of 0 or with widen_background."""

    images_per_step: int = 2
    """N, images per step (section 2.3)."""
    rois_per_step: int = 128
    """R, RoIs per step: R / N from each image."""
    accumulate: int = 1
    """Split a step's images into this many parts that pass through the network in turn, to save memory."""
    max_proposals: int = 2000
    """Sample from at most this many proposals of an image, the best ones (section 4.1)."""
    min_proposal_side: float = 0.0
    """Leave out proposals with a side below this, in pixels of the original image."""
    foreground_fraction: float = 0.25
    """Largest share of an image's RoIs that is foreground."""
    foreground_iou: float = 0.5
    """A RoI is foreground if its overlap with an object is at least this."""
    background_iou_low: float = 0.1
    """A RoI is background if its largest overlap is at least this: below, the example is too easy."""
    background_iou_high: float = 0.5
    """A RoI is background if its largest overlap is below this."""
    widen_background: bool = False
    """In an image without a RoI in the range of background, take background of any overlap below its upper
    limit; else such an image has no background (released code)."""

    box_loss_weight: float = 1.0
    """lambda of equation 1; 0 trains the classifier alone, so detections keep the proposals' boxes."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or AdamW."""
    learning_rate: float = 0.001
    """Learning rate of new layers."""
    pretrained_learning_rate: float | None = None
    """Learning rate of layers with pretrained weights; unset: as of new layers."""
    momentum: float = 0.9
    """Momentum of SGD."""
    velocity_holds_rate: bool = True
    """SGD's momentum carries steps, each at the rate of its own time, as in Caffe; else it carries gradients
    that all take the current rate, as in torch. They differ for some ten steps after the rate is cut."""
    weight_decay: float = 0.0005
    """Decay of all weights; decoupled in AdamW."""
    bias_rate_factor: float = 2.0
    """Factor of the learning rate of biases (released code)."""
    decay_biases: bool = False
    """Decay biases too (the paper's text, not its code)."""
    gradient_clip: float | None = None
    """Scale gradients down to this norm if they exceed it; unset: never."""

    epochs: float = 16.0
    """Passes over the images; the paper's 40k steps of 2 images over VOC 2007 trainval."""
    box_epochs: float = 0.0
    """Further passes that train the box layer alone on the trained network: with a box_loss_weight of 0,
    the stage-wise training of table 6."""
    iterations: int | None = None
    """Number of steps; overrides `epochs` if set."""
    schedule: Literal["step", "cosine"] = "step"
    """Cut the learning rate once, or let it fall along half a cosine to zero."""
    step_at: float = 0.75
    """Share of training after which the step schedule cuts the rate (30k of 40k)."""
    step_factor: float = 0.1
    """Factor by which the step schedule cuts the rate."""
    warm_up: float = 0.0
    """Share of training in which the rate rises linearly from near zero."""
    scale_rate_with_workers: bool = False
    """If there are GPUs, or --workers is set: each worker takes all images of a step, with learning rates
    times the number of workers after a warm-up, and steps divided by it. Else the workers divide a step's
    images, at most one worker per image, so the schedule is the same at any number of workers."""

    channels_last: bool = True
    """Store feature maps channels last: 1.2 to 1.5 times as fast on CPUs with AVX512 or AMX."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 use autocast in the forward pass; CPUs compute frozen layers entirely in bf16, and fp16
    scales gradients. `auto` is bf16 if the devices of all workers support it when the training begins, else
    fp32; reruns keep that choice."""

    def __post_init__(self) -> None:
        self._check_ranges()
        self._require(
            len(self.short_sides) > 0
            and min(self.short_sides) >= SMALLEST_SIDE
            and max(self.short_sides) <= self.max_side,
            "short_sides",
            f"sides from {SMALLEST_SIDE} to --max-side ({self.max_side})",
        )
        self._require(
            self.rois_per_step % self.images_per_step == 0,
            "rois_per_step",
            f"a multiple of --images-per-step ({self.images_per_step})",
        )
        self._require(
            self.images_per_step % self.accumulate == 0,
            "accumulate",
            f"a divisor of --images-per-step ({self.images_per_step})",
        )
        self._require(
            round(self.foreground_fraction * self.rois_per_image) >= 1,
            "foreground_fraction",
            f"enough for one foreground RoI among the {self.rois_per_image} of an image",
        )
        self._require(
            self.warm_up > 0 or not self.scale_rate_with_workers,
            "warm_up",
            "above 0, such as 0.05, with --scale-rate-with-workers",
        )
        low, high = self.background_iou_low, self.background_iou_high
        self._require(
            0 <= low < high <= 1,
            "background_iou_low",
            f"at least 0 and below --background-iou-high ({high}), itself at most 1",
        )

    def _check_ranges(self) -> None:
        check_fields(
            self,
            *("images_per_step", "rois_per_step", "accumulate", "max_proposals", "max_side"),
            "iterations",
            at_least=1,
        )
        check_fields(
            self,
            *("flip", "foreground_fraction", "foreground_iou", "warm_up", "step_at"),
            at_least=0,
            at_most=1,
        )
        check_fields(
            self,
            *("pretrained_learning_rate", "bias_rate_factor", "step_factor", "weight_decay"),
            *("momentum", "box_loss_weight", "min_proposal_side", "box_epochs"),
            at_least=0,
        )
        check_fields(self, "epochs", "learning_rate", "gradient_clip", above=0)

    def _require(self, holds: bool, name: str, expected: str) -> None:
        """Reject a field that does not fit the others, in the words of `option_ranges`."""
        if not holds:
            option = name.replace("_", "-")
            raise InvalidConfiguration(f"--{option} is {getattr(self, name)}, expected {expected}")

    @property
    def rois_per_image(self) -> int:
        """R / N."""
        return self.rois_per_step // self.images_per_step

    def count_steps(self, images: int, workers: int) -> tuple[int, int]:
        """Steps that train all layers, then steps that train the box layer alone.

        Args:
            images: images per epoch.
            workers: workers that take `images_per_step` each in a step.
        """
        epoch = images / (self.images_per_step * workers)
        joint = self.iterations or max(1, ceil(self.epochs * epoch))
        return joint, ceil(self.box_epochs * epoch)

    def divide_among_workers(self, max_workers: int) -> tuple[Recipe, int]:
        """Divide a step among workers: the recipe of each, and their number.

        No more images pass through the network at once than `accumulate` allows.

        Args:
            max_workers: the result has at most this many; it is the largest number that divides the
                step's images.
        """
        workers = max(n for n in range(1, max_workers + 1) if self.images_per_step % n == 0)
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
