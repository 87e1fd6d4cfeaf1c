"""Named recipes: the paper's three networks, and others with what was found to suit them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches

from pipeline.errors import InvalidConfiguration
from pipeline.training.recipe import Recipe

PAPER = Recipe()


def paper_s() -> Recipe:
    """The paper's S: CaffeNet."""
    return replace(PAPER, network="caffenet")


def paper_m() -> Recipe:
    """The paper's M: VGG_CNN_M_1024."""
    return replace(PAPER, network="vgg_cnn_m_1024")


def paper_l() -> Recipe:
    """The paper's L: VGG16."""
    return replace(PAPER, network="vgg16")


def resnet50() -> Recipe:
    """ResNet-50 with its last stage as the head of each RoI (C4); the paper's step and image size."""
    return replace(
        PAPER,
        network="resnet50",
        min_proposal_side=12.0,
        optimiser="adamw",
        learning_rate=2e-4,
        pretrained_learning_rate=5e-5,
        weight_decay=0.05,
        bias_rate_factor=1.0,
        schedule="cosine",
        warm_up=0.03,
        gradient_clip=10.0,
        epochs=10.0,
        precision="auto",
    )


def mobilenet_v2() -> Recipe:
    """MobileNetV2 with its last blocks as the head of each RoI; made for training on CPUs.

    Background may overlap nothing at all, unlike in the paper: on blood cells, of which many are not
    annotated, mAP was 0.84 with such RoIs and 0.78 without them (docs/training.md).
    """
    return replace(
        PAPER,
        network="mobilenet_v2_expanded",
        short_sides=(480, 560, 640),
        max_side=960,
        min_proposal_side=12.0,
        background_iou_low=0.0,
        optimiser="adamw",
        learning_rate=4e-4,
        pretrained_learning_rate=1.5e-4,
        weight_decay=0.01,
        bias_rate_factor=1.0,
        schedule="cosine",
        warm_up=0.03,
        gradient_clip=10.0,
        epochs=16.0,
        precision="auto",
    )


def resnet18() -> Recipe:
    """ResNet-18 with its last stage as the head of each RoI (C4): the smallest of the residual networks."""
    return replace(resnet50(), network="resnet18")


def tiny() -> Recipe:
    """A small network that learns drawn images from scratch in a minute or two."""
    return replace(
        PAPER,
        network="tiny",
        short_sides=(240,),
        max_side=400,
        min_proposal_side=8.0,
        optimiser="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        bias_rate_factor=1.0,
        schedule="cosine",
        warm_up=0.05,
        gradient_clip=10.0,
        epochs=12.0,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (paper_s, paper_m, paper_l, mobilenet_v2, resnet50, resnet18, tiny)
}
"""The recipes that can be asked for by name."""


def named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InvalidConfiguration: there is none.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidConfiguration(
            f"there is no recipe {name!r}; recipes are {', '.join(sorted(RECIPES))}{hint}"
        )
    return RECIPES[name]()
