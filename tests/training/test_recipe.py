"""Recipes: the paper's values, rejected values, the number of steps."""

import ast
import dataclasses
import inspect
import itertools
import json

import pytest

from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.errors import InvalidConfiguration
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import RECIPES, get_recipe


def test_defaults_are_the_papers():
    recipe = Recipe()
    assert (recipe.images_per_step, recipe.rois_per_step, recipe.rois_per_image) == (2, 128, 64)
    assert (recipe.foreground_fraction, recipe.foreground_iou) == (0.25, 0.5)
    assert (recipe.background_iou_low, recipe.background_iou_high) == (0.1, 0.5)
    assert (recipe.optimiser, recipe.learning_rate, recipe.momentum) == ("sgd", 0.001, 0.9)
    assert (recipe.short_sides, recipe.max_side) == ((600,), 1000)


def test_the_number_of_steps_counts_the_images_of_all_workers():
    recipe = Recipe(epochs=16)
    assert recipe.count_steps(5000, workers=1) == (40_000, 0)
    assert recipe.count_steps(5000, workers=4) == (10_000, 0)
    assert dataclasses.replace(recipe, iterations=7).count_steps(5000, workers=4) == (7, 0)
    assert dataclasses.replace(recipe, box_epochs=2).count_steps(5000, workers=1) == (40_000, 5000)
    assert Recipe(epochs=0.001).count_steps(3, workers=1) == (1, 0)


def test_a_step_is_divided_among_as_many_workers_as_divide_it():
    recipe = Recipe(images_per_step=6, rois_per_step=384)
    for max_workers, workers in ((1, 1), (2, 2), (4, 3), (16, 6)):
        worker_recipe, count = recipe.divide_among_workers(max_workers)
        assert count == workers
        assert worker_recipe.images_per_step * workers == 6
        assert worker_recipe.rois_per_image == recipe.rois_per_image


@pytest.mark.parametrize(("workers", "parts"), [(1, 3), (2, 3), (3, 1), (6, 1)])
def test_a_divided_step_takes_no_more_images_at_once(workers, parts):
    recipe = Recipe(images_per_step=6, rois_per_step=384, accumulate=3)
    worker_recipe, count = recipe.divide_among_workers(workers)
    assert (count, worker_recipe.accumulate) == (workers, parts)
    assert worker_recipe.images_per_step // worker_recipe.accumulate <= 2


def test_every_recipe_names_an_existing_network():
    for make in RECIPES.values():
        assert make().network in BACKBONES


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images_per_step", 0),
        ("rois_per_step", 127),
        ("short_sides", ()),
        ("short_sides", (31, 600)),
        ("short_sides", (480, 1200)),  # a cap of 1000
        ("flip", 1.5),
        ("background_iou_low", 0.6),
        ("epochs", 0.0),
        ("iterations", 0),
        ("learning_rate", -1.0),
        ("pretrained_learning_rate", -1.0),
        ("bias_rate_factor", -2.0),
        ("step_factor", -0.1),
        ("gradient_clip", 0.0),
        ("foreground_fraction", 0.0),
        ("foreground_fraction", 0.005),
        ("accumulate", 3),
    ],
)
def test_a_value_outside_its_range_is_rejected_by_name(field, value):
    option = f"--{field.replace('_', '-')} is "
    with pytest.raises(InvalidConfiguration, match=option):
        Recipe(**{field: value})


def test_scaled_rates_need_a_warm_up():
    with pytest.raises(InvalidConfiguration, match=r"--warm-up is 0.0, expected above 0"):
        Recipe(scale_rate_with_workers=True)
    assert Recipe(scale_rate_with_workers=True, warm_up=0.05).warm_up == 0.05


@pytest.mark.parametrize("name", ["paper_s", "paper_m", "paper_l"])
def test_the_papers_recipes_train_as_the_released_code(name):
    recipe = get_recipe(name)
    assert recipe.velocity_holds_rate
    assert not recipe.widen_background
    assert not recipe.scale_rate_with_workers


def test_an_unknown_recipe_is_rejected_with_the_names():
    with pytest.raises(InvalidConfiguration, match=r"'mobilnet_v2'.*mobilenet_v2, .*did you mean"):
        get_recipe("mobilnet_v2")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name):
    recipe = get_recipe(name)
    settings = json.loads(json.dumps(recipe.as_settings()))
    assert Recipe(**{**settings, "short_sides": tuple(settings["short_sides"])}) == recipe


def test_every_field_has_a_docstring():
    (definition,) = ast.parse(inspect.getsource(Recipe)).body
    assert isinstance(definition, ast.ClassDef)
    body = definition.body
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{field.target.id} has no docstring"


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_names_its_command_and_what_was_measured(name):
    text = inspect.getdoc(RECIPES[name])
    assert f"Command: `python jobs/train.py DATA --recipe {name}" in text
    assert "minutes" in text.lower()
    assert "score" in text.lower()
