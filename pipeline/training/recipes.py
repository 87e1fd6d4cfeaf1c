"""Named recipes: the paper's three networks, and others with the settings that suit them.

Each docstring gives the command, the minutes of training on a named machine and the score: the mean
average precision at IoU 0.5 with 11 points. DATA means `--manifest M --proposals P --output O`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches

from pipeline.errors import InvalidConfiguration
from pipeline.training.recipe import Recipe

PAPER = Recipe()


def paper_s() -> Recipe:
    """The paper's S: CaffeNet.

    Command: `python jobs/train.py DATA --recipe paper_s --weights caffenet.pth`.
    Minutes and score: not measured.
    """
    return replace(PAPER, network="caffenet")


def paper_m() -> Recipe:
    """The paper's M: VGG_CNN_M_1024.

    Command: `python jobs/train.py DATA --recipe paper_m --weights vgg_cnn_m_1024.pth`.
    Minutes and score: not measured.
    """
    return replace(PAPER, network="vgg_cnn_m_1024")


def paper_l() -> Recipe:
    """The paper's L: VGG16.

    Command: `python jobs/train.py DATA --recipe paper_l --weights VGG16_Weights.DEFAULT`.
    Minutes and score: not measured.
    """
    return replace(PAPER, network="vgg16")


def resnet50() -> Recipe:
    """ResNet-50 with its last stage as the head of each RoI (C4); the paper's step and image size per worker.

    Command: `python jobs/train.py DATA --recipe resnet50 --weights ResNet50_Weights.DEFAULT`.
    Minutes and score: not measured.
    """
    return replace(
        PAPER,
        network="resnet50",
        min_proposal_side=12.0,
        widen_background=True,
        optimiser="adamw",
        learning_rate=2e-4,
        pretrained_learning_rate=5e-5,
        weight_decay=0.05,
        bias_rate_factor=1.0,
        schedule="cosine",
        warm_up=0.03,
        scale_rate_with_workers=True,
        gradient_clip=10.0,
        epochs=10.0,
        precision="auto",
    )


def mobilenet_v2() -> Recipe:
    """MobileNetV2 with its last blocks as the head of each RoI, for training on CPUs.

    Command: `python jobs/train.py DATA --recipe mobilenet_v2 --weights mobilenet_v2_imagenet1001.pth`.
    On two cores of an AMD EPYC with bf16 (docs/training.md): VOC 2007, trained on 1200 images and scored
    on 400 others, 41 minutes, 0.568; BCCD, trained on 205 images and scored on 72, 6 minutes, 0.842.

    Unlike in the paper, background may overlap no object at all: on BCCD, where many blood cells are not
    annotated, the score is 0.84 with such RoIs and 0.78 without them.
    """
    return replace(
        PAPER,
        network="mobilenet_v2_expanded",
        short_sides=(480, 560, 640),
        max_side=960,
        min_proposal_side=12.0,
        background_iou_low=0.0,
        widen_background=True,
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
    """ResNet-18 with its last stage as the head of each RoI (C4): the smallest of the residual networks.

    Command: `python jobs/train.py DATA --recipe resnet18 --weights ResNet18_Weights.DEFAULT`.
    Minutes and score: not measured. From scratch, on two cores of an AMD EPYC with bf16, BCCD takes 20
    minutes and scores 0.825 with `--freeze-until none --short-sides 480 --max-side 640
    --background-iou-low 0 --epochs 16 --learning-rate 3e-4` (docs/detection.md).
    """
    return replace(resnet50(), network="resnet18")


def tiny() -> Recipe:
    """A small network that learns drawn images from scratch.

    Command: `python jobs/train.py DATA --recipe tiny`, as `make demo` runs it.
    Minutes: one or two on two cores. Score: not measured.
    """
    return replace(
        PAPER,
        network="tiny",
        short_sides=(240,),
        max_side=400,
        min_proposal_side=8.0,
        widen_background=True,
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
"""The recipes by name."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InvalidConfiguration: no recipe has the name; the message lists the names.
    """
    if name not in RECIPES:
        near = get_close_matches(name, RECIPES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidConfiguration(
            f"there is no recipe {name!r}; recipes are {', '.join(sorted(RECIPES))}{hint}"
        )
    return RECIPES[name]()
