"""Parameter groups and the schedule of their learning rates."""

import math

import pytest
import torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.training.caffe_sgd import CaffeSGD
from pipeline.training.optimisation import build_optimiser, compute_rate_factor, set_rates
from pipeline.training.recipe import Recipe


def build_groups(recipe, pretrained=(), factor=1, freeze="none"):
    model = build_network(Architecture(("cat",), "tiny", freeze_until=freeze))
    optimiser = build_optimiser(model, recipe, pretrained, factor)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return optimiser, {
        names[id(parameter)]: group
        for group in optimiser.param_groups
        for parameter in group["params"]
    }


def test_the_papers_biases_learn_twice_as_fast_and_do_not_decay():
    optimiser, groups = build_groups(Recipe())
    assert isinstance(optimiser, CaffeSGD)
    assert isinstance(build_groups(Recipe(velocity_holds_rate=False))[0], torch.optim.SGD)
    weight, bias = groups["cls_score.weight"], groups["cls_score.bias"]
    assert (weight["lr"], weight["weight_decay"], weight["momentum"]) == (0.001, 0.0005, 0.9)
    assert (bias["lr"], bias["weight_decay"]) == (0.002, 0.0)
    assert build_groups(Recipe(decay_biases=True))[1]["cls_score.bias"]["weight_decay"] == 0.0005


def test_pretrained_layers_have_a_rate_of_their_own():
    recipe = Recipe(optimiser="adamw", learning_rate=4e-4, pretrained_learning_rate=1e-4)
    optimiser, groups = build_groups(recipe, {"backbone.blocks.0.0.weight"})
    assert isinstance(optimiser, torch.optim.AdamW)
    assert groups["backbone.blocks.0.0.weight"]["lr"] == 1e-4
    assert groups["cls_score.weight"]["lr"] == 4e-4


def test_frozen_layers_are_left_out():
    _, groups = build_groups(Recipe(), freeze="block0")
    assert not any(name.startswith("backbone.blocks.0.") for name in groups)
    assert any(name.startswith("backbone.blocks.1.") for name in groups)


def test_all_rates_are_multiplied():
    scaled = build_groups(Recipe(), factor=4)[1]
    assert scaled["cls_score.weight"]["lr"] == pytest.approx(0.004)
    assert scaled["cls_score.bias"]["lr"] == pytest.approx(0.008)


def test_the_papers_schedule_cuts_once():
    factors = [compute_rate_factor(Recipe(), step, 40_000) for step in (0, 29_999, 30_000, 39_999)]
    assert factors == [1.0, 1.0, 0.1, 0.1]


def test_cosine_rises_and_falls_to_zero():
    recipe = Recipe(schedule="cosine", warm_up=0.1)
    factors = [compute_rate_factor(recipe, step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 45 / 90)))
    assert factors[99] < 0.001
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_setting_rates_keeps_their_ratio():
    optimiser, groups = build_groups(Recipe())
    assert set_rates(optimiser, 0.5) == pytest.approx(0.001)
    set_rates(optimiser, 0.1)
    assert groups["cls_score.weight"]["lr"] == pytest.approx(1e-4)
    assert groups["cls_score.bias"]["lr"] == pytest.approx(2e-4)
