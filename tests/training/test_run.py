"""A training's make-up: what pretrained weights expect of images and convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.detector.preprocessing import CAFFE, TENSORFLOW, TORCHVISION, Preprocessing
from pipeline.training.recipe import Recipe
from pipeline.training.run import TrainingRun
from pipeline.training.survey import survey
from tests.training.drawn import make_sources

NAME = "MobileNet_V2_Weights.IMAGENET1K_V1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    sources, _ = make_sources(tmp_path_factory.mktemp("drawn"))
    return TrainingRun("out", Recipe(), sources, survey(sources, Recipe()))


@pytest.mark.parametrize(
    ("fields", "weights", "expected", "padding"),
    [
        ({"network": "mobilenet_v2"}, None, TENSORFLOW, None),
        ({"network": "mobilenet_v2"}, "s3://b/w.pth", TENSORFLOW, None),  # the network's usual ones
        ({"network": "mobilenet_v2"}, NAME, TORCHVISION, "symmetric"),
        ({"network": "mobilenet_v2", "padding": "same"}, NAME, TORCHVISION, "same"),
        ({"network": "vgg16"}, "VGG16_Weights.DEFAULT", TORCHVISION, "symmetric"),
        ({"network": "vgg16", "preprocessing": "caffe"}, "/w.pth", CAFFE, None),
        ({"network": "caffenet"}, "/w.pth", CAFFE, None),
    ],
)
def test_preprocessing_and_padding_belong_to_the_weights(
    run: TrainingRun,
    fields: dict[str, Any],
    weights: str | None,
    expected: Preprocessing,
    padding: str | None,
) -> None:
    recipe = Recipe(**fields, short_sides=(480, 600, 1200), max_side=2000)
    told = replace(run, recipe=recipe, weights=weights)
    assert told.preprocessing() == replace(expected, short_side=600, max_side=2000)
    assert told.architecture().padding == padding


def test_any_network_with_torchvisions_weights_is_padded_as_they_are(run: TrainingRun) -> None:
    from pipeline.detector.backbones.catalog import BACKBONES

    for network in BACKBONES:
        told = replace(run, recipe=Recipe(network=network), weights="X_Weights.DEFAULT")
        assert told.architecture().padding == "symmetric"
