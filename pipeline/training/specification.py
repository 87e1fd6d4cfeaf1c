"""The specification of a training, and the network that it starts from.

Importing this does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES, is_torchvision_name
from pipeline.detector.preprocessing import PREPROCESSING_BY_NAME, Preprocessing
from pipeline.errors import InvalidConfiguration
from pipeline.training.annotated_dataset import AnnotatedDataset
from pipeline.training.recipe import Recipe
from pipeline.training.sample_order import SampleOrder
from pipeline.training.survey import Survey

if TYPE_CHECKING:
    from pipeline.detector.network import FastRCNN
    from pipeline.detector.weights import LoadedWeights


@dataclass(frozen=True)
class TrainingSpec:
    """What every worker of a training must know."""

    output: str
    """Where states, logs and the final network go."""
    recipe: Recipe
    datasets: Sequence[AnnotatedDataset]
    survey: Survey
    weights: str | None = None
    """Pretrained weights as `load_pretrained` takes them; None trains all layers from scratch."""
    seed: int = 0
    workers: int = 1
    rate_factor: int = 1
    """Multiplies the learning rates."""
    checkpoint_every: int = 250
    """Steps between states."""
    log_every: int = 20
    """Steps between records of the log."""
    validate_every: int | None = None
    """Steps between validations; None disables validation."""
    validation: str | None = None
    """Digest of the images that validate: scores on others are not compared with theirs."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all datasets."""
        return self.datasets[0].classes

    @property
    def joint_steps(self) -> int:
        """Steps that train all layers: by default all steps, else those before the box layer alone."""
        return self.recipe.count_steps(self.survey.images, self.workers)[0]

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return sum(self.recipe.count_steps(self.survey.images, self.workers))

    def is_validation_due(self, step: int) -> bool:
        """Whether the network is validated after `step` steps."""
        every = self.validate_every
        return every is not None and (step % every == 0 or step == self.steps)

    def is_state_due(self, step: int) -> bool:
        """Whether a state is written after `step` steps."""
        last = step in (self.joint_steps, self.steps)
        return last or step % self.checkpoint_every == 0 or self.is_validation_due(step)

    @property
    def images_per_step(self) -> int:
        """Images that one step takes over all workers."""
        return self.recipe.images_per_step * self.workers

    @property
    def sample_order(self) -> SampleOrder:
        """The order of the images."""
        return SampleOrder(self.survey.shards, self.seed)

    @property
    def architecture(self) -> Architecture:
        """The network's architecture, see `choose_architecture`."""
        return choose_architecture(self.recipe, self.classes, self.weights)

    @property
    def preprocessing(self) -> Preprocessing:
        """What the weights expect, at the recipe's size; of several sizes, detection takes the middle."""
        recipe, sides = self.recipe, sorted(self.recipe.short_sides)
        name = recipe.preprocessing
        if name is None and is_torchvision_name(self.weights):
            name = "torchvision"
        return replace(
            PREPROCESSING_BY_NAME[name]
            if name is not None
            else BACKBONES[recipe.network].preprocessing,
            short_side=sides[len(sides) // 2],
            max_side=recipe.max_side,
            shift_rois_first=BACKBONES[recipe.network].shift_rois_first,
        )

    def as_settings(self) -> dict[str, Any]:
        """The settings that decide the result, as JSON values, without the digests of the inputs.

        Workers count only through the images of a step: two workers with one image each do what one
        worker with two does, except that each worker draws its own dropout.
        """
        recipe = self.recipe.as_settings()
        for name in ("images_per_step", "rois_per_step"):
            recipe[name] *= self.workers
        del recipe["accumulate"], recipe["scale_rate_with_workers"]
        return {
            "recipe": recipe,
            "rate_factor": self.rate_factor,
            "classes": list(self.classes),
            "seed": self.seed,
        }


def choose_architecture(
    recipe: Recipe, classes: tuple[str, ...], weights: str | None
) -> Architecture:
    """The architecture of a recipe's network; nothing is frozen if there are no pretrained weights.

    Raises:
        InvalidConfiguration: a value that the network does not have.
    """
    freeze = recipe.freeze_until
    if weights is None:
        if freeze not in (None, "none"):
            raise InvalidConfiguration(
                f"--freeze-until {freeze} without --weights would freeze layers at random values"
            )
        freeze = "none"
    padding: str | None = recipe.padding
    if padding is None and is_torchvision_name(weights):
        padding = "symmetric"
    return Architecture(
        classes,
        recipe.network,
        roi_size=recipe.roi_size,
        fc_widths=recipe.fc_widths,
        padding=padding,
        freeze_until=freeze,
    )


def build_initial_network(
    architecture: Architecture, weights: str | None, seed: int
) -> tuple[FastRCNN, LoadedWeights]:
    """The network at step 0, and which of its layers came with pretrained weights.

    Raises:
        InvalidCheckpoint: the weights belong to another network.
        InvalidConfiguration: the network does not have the stage to freeze.
    """
    from pipeline.detector.network import build_network  # noqa: PLC0415  imports torch
    from pipeline.detector.weights import LoadedWeights, load_pretrained  # noqa: PLC0415

    network = build_network(architecture, seed)
    if weights is None:
        return network, LoadedWeights()
    return network, load_pretrained(network, weights)
