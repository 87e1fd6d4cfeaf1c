"""Workers of a training: how many the nodes hold, with GPUs or cores."""

from __future__ import annotations

import pytest

from pipeline.engine.train.workers import find_fitting_workers
from pipeline.runs.placement import Placement
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import get_recipe


@pytest.mark.parametrize(
    ("nodes", "count", "expected"),
    [
        ([{"CPU": 2}], None, (2, 1, False, 1)),  # the step's two images, one for each core
        ([{"CPU": 8}], None, (2, 4, False, 1)),
        ([{"CPU": 8}], 1, (1, 8, False, 2)),
        ([{"CPU": 4}, {"CPU": 4}], 1, (1, 4, False, 2)),  # a worker does not span nodes
        ([{"CPU": 4}, {"CPU": 2}], 3, (2, 2, False, 1)),  # two images do not divide among three
        ([{"CPU": 16, "GPU": 4}], None, (2, 8, True, 1)),
        ([{"CPU": 16, "GPU": 4}], 2, (2, 8, True, 1)),
        ([{"CPU": 16, "GPU": 4}], 1, (1, 16, True, 2)),
    ],
)
def test_workers_fill_the_nodes(
    nodes: list[dict[str, float]], count: int | None, expected: tuple[int, int, bool, int]
) -> None:
    workers = find_fitting_workers(Recipe(), count, nodes)
    assert workers is not None
    assert (workers.count, workers.cpus, workers.gpu, workers.recipe.images_per_step) == expected


@pytest.mark.parametrize("name", ["paper_s", "paper_m", "paper_l"])
@pytest.mark.parametrize("count", [None, 1, 2, 3, 8])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
def test_the_papers_recipes_keep_the_papers_schedule_at_any_number_of_workers(
    name: str, count: int | None, gpus: int
) -> None:
    recipe = get_recipe(name)
    workers = find_fitting_workers(recipe, count, [{"CPU": 32, "GPU": gpus}])
    if workers is None:
        assert gpus == 1  # waits for a second one
        assert count in {2, 3, 8}
        return
    assert workers.rate_factor == 1
    assert workers.recipe.images_per_step * workers.count == 2
    assert workers.recipe.count_steps(5000, workers.count) == (40_000, 0)


def test_recipes_meant_for_it_scale_with_gpus_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    recipe = get_recipe("resnet50")
    workers = find_fitting_workers(recipe, None, [{"CPU": 16, "GPU": 4}])
    assert workers is not None
    assert (workers.count, workers.rate_factor, workers.recipe) == (4, 4, recipe)
    workers.log_schedule()
    assert "4 workers take 2 images each: a step has 8 images" in caplog.text
    on_cores = find_fitting_workers(recipe, None, [{"CPU": 16}])
    assert on_cores is not None
    assert (on_cores.count, on_cores.rate_factor) == (2, 1)


def test_gpus_without_an_image_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    workers = find_fitting_workers(Recipe(), None, [{"CPU": 16, "GPU": 4}])
    assert workers is not None
    workers.log_schedule()
    assert "2 of 4 workers are left out: a step's 2 images divide among 2" in caplog.text


def test_workers_use_gpus_or_cores_as_requested() -> None:
    one_gpu = [{"CPU": 16, "GPU": 1}]
    assert find_fitting_workers(Recipe(), 4, one_gpu) is None  # never on cores by itself
    assert find_fitting_workers(Recipe(), None, [{"CPU": 16}], gpu=True) is None
    for gpu, expected in ((True, (1, True)), (False, (2, False))):
        workers = find_fitting_workers(Recipe(), None, one_gpu, gpu)
        assert workers is not None
        assert (workers.count, workers.gpu) == expected


def test_nodes_that_are_too_small_hold_no_workers() -> None:
    assert find_fitting_workers(get_recipe("resnet50"), 3, [{"CPU": 2}]) is None
    assert find_fitting_workers(Recipe(), None, [{"CPU": 0}]) is None


def test_custom_resources_bound_the_workers_of_a_node() -> None:
    placement = Placement({"fast": 1}, {"market": "stable"})
    nodes = [{"CPU": 8.0, "GPU": 4.0, "fast": 1.0}]
    assert find_fitting_workers(Recipe(), 2, nodes, placement=placement) is None
    workers = find_fitting_workers(Recipe(), 2, nodes * 2, placement=placement)
    assert workers is not None
    assert (workers.count, workers.resources) == (2, {"CPU": 8, "GPU": 1, "fast": 1})
