"""The specification of a training: what pretrained weights expect of images and convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.detector.preprocessing import CAFFE, TENSORFLOW, TORCHVISION, Preprocessing
from pipeline.training.recipe import Recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import open_drawn_datasets

NAME = "MobileNet_V2_Weights.IMAGENET1K_V1"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TrainingSpec:
    datasets, _ = open_drawn_datasets(tmp_path_factory.mktemp("drawn"))
    return TrainingSpec("out", Recipe(), datasets, survey_datasets(datasets, Recipe()))


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
    spec: TrainingSpec,
    fields: dict[str, Any],
    weights: str | None,
    expected: Preprocessing,
    padding: str | None,
) -> None:
    recipe = Recipe(**fields, short_sides=(480, 600, 1200), max_side=2000)
    changed = replace(spec, recipe=recipe, weights=weights)
    released = fields["network"] in {"vgg16", "caffenet"}
    assert changed.preprocessing == replace(
        expected, short_side=600, max_side=2000, shift_rois_first=released
    )
    assert changed.architecture.padding == padding


def test_the_papers_networks_project_rois_as_the_released_code(spec: TrainingSpec) -> None:
    from pipeline.detector.backbones.catalog import BACKBONES

    released = {
        network
        for network in BACKBONES
        if replace(spec, recipe=Recipe(network=network)).preprocessing.shift_rois_first
    }
    assert released == {"caffenet", "vgg_cnn_m_1024", "vgg16"}


def test_torchvision_weights_by_name_pad_every_network_symmetrically(spec: TrainingSpec) -> None:
    from pipeline.detector.backbones.catalog import BACKBONES

    for network in BACKBONES:
        changed = replace(spec, recipe=Recipe(network=network), weights="X_Weights.DEFAULT")
        assert changed.architecture.padding == "symmetric"
