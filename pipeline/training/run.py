"""What a training run is told, and the network it starts from. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES, is_torchvision_name
from pipeline.detector.preprocessing import BY_NAME, Preprocessing
from pipeline.errors import InvalidConfiguration
from pipeline.training.plan import Plan
from pipeline.training.recipe import Recipe
from pipeline.training.source import Source
from pipeline.training.survey import Survey

if TYPE_CHECKING:
    from pipeline.detector.network import FastRCNN
    from pipeline.detector.weights import LoadedWeights


@dataclass(frozen=True)
class TrainingRun:
    """One training, as each of its workers is told of it."""

    output: str
    """Where states, logs and the final model go."""
    recipe: Recipe
    sources: Sequence[Source]
    survey: Survey
    weights: str | None = None
    """Pretrained weights as `load_pretrained` takes them; none trains all layers from scratch."""
    seed: int = 0
    workers: int = 1
    rate_factor: int = 1
    """Multiplies the learning rates."""
    checkpoint_every: int = 250
    """Steps between states."""
    log_every: int = 20
    """Steps between records of the log."""
    validate_every: int | None = None
    """Steps between validations; none validates never."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all sources."""
        return self.sources[0].classes

    @property
    def joint_steps(self) -> int:
        """Steps before those that train the box layer alone, which is all there are by default."""
        return self.recipe.steps(self.survey.images, self.workers)[0]

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return sum(self.recipe.steps(self.survey.images, self.workers))

    def validation_due(self, step: int) -> bool:
        """Whether the network is validated after so many steps."""
        every = self.validate_every
        return every is not None and (step % every == 0 or step == self.steps)

    def state_due(self, step: int) -> bool:
        """Whether a state is written after so many steps."""
        last = step in (self.joint_steps, self.steps)
        return last or step % self.checkpoint_every == 0 or self.validation_due(step)

    @property
    def images_per_step(self) -> int:
        """Images that one step takes over all workers."""
        return self.recipe.images_per_step * self.workers

    def plan(self) -> Plan:
        """The order of the images."""
        return Plan(self.survey.shards, self.seed)

    def architecture(self) -> Architecture:
        """The network's make-up, see `architecture`."""
        return architecture(self.recipe, self.classes, self.weights)

    def preprocessing(self) -> Preprocessing:
        """What the weights expect, at the recipe's size; of several, detection takes the middle."""
        recipe, sides = self.recipe, sorted(self.recipe.short_sides)
        told = recipe.preprocessing
        if told is None and is_torchvision_name(self.weights):
            told = "torchvision"
        return replace(
            BY_NAME[told] if told is not None else BACKBONES[recipe.network].preprocessing,
            short_side=sides[len(sides) // 2],
            max_side=recipe.max_side,
        )

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values, but for digests of the inputs.

        Workers count only as a factor of a step's images: two workers with one image each do what
        one worker with two does, but for the draws of dropout, which each has its own of.
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


def architecture(recipe: Recipe, classes: tuple[str, ...], weights: str | None) -> Architecture:
    """The make-up of a recipe's network; nothing is frozen where there are no weights to keep.

    Raises:
        InvalidConfiguration: a value that the network does not have.
    """
    freeze = recipe.freeze_until
    if weights is None:
        if freeze not in (None, "none"):
            raise InvalidConfiguration(
                f"freeze-until {freeze} without --weights would keep random layers as they are"
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


def initial_network(
    architecture: Architecture, weights: str | None, seed: int
) -> tuple[FastRCNN, LoadedWeights]:
    """The network at step 0 and what of it came with pretrained weights.

    Raises:
        InvalidCheckpoint: the weights are not the network's.
        InvalidConfiguration: a stage to freeze that the network does not have.
    """
    from pipeline.detector import weights as pretrained  # noqa: PLC0415
    from pipeline.detector.network import build  # noqa: PLC0415  a driver reads runs without torch

    model = build(architecture, seed)
    if weights is None:
        return model, pretrained.LoadedWeights()
    return model, pretrained.load_pretrained(model, weights)
