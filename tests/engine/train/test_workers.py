"""Workers of a training: how many the nodes hold, with GPUs or cores."""

from __future__ import annotations

import pytest

from pipeline.engine.train.workers import find_fitting_workers
from pipeline.training.recipe import Recipe


@pytest.mark.parametrize(
    ("nodes", "count", "expected"),
    [
        ([{"CPU": 2}], None, (2, 1, False, 1)),  # the step's two images, one for each core
        ([{"CPU": 8}], None, (2, 4, False, 1)),
        ([{"CPU": 8}], 1, (1, 8, False, 2)),
        ([{"CPU": 4}, {"CPU": 4}], 1, (1, 4, False, 2)),  # a worker does not span nodes
        ([{"CPU": 4}, {"CPU": 2}], 3, (3, 2, False, 2)),
        ([{"CPU": 16, "GPU": 4}], None, (4, 4, True, 2)),
        ([{"CPU": 16, "GPU": 4}], 2, (2, 8, True, 2)),
    ],
)
def test_workers_fill_the_nodes(
    nodes: list[dict[str, float]], count: int | None, expected: tuple[int, int, bool, int]
) -> None:
    workers = find_fitting_workers(Recipe(), count, nodes)
    assert workers is not None
    assert (workers.count, workers.cpus, workers.gpu, workers.recipe.images_per_step) == expected


def test_workers_use_gpus_or_cores_as_requested() -> None:
    one_gpu = [{"CPU": 16, "GPU": 1}]
    assert find_fitting_workers(Recipe(), 4, one_gpu) is None  # never on cores by itself
    assert find_fitting_workers(Recipe(), None, [{"CPU": 16}], gpu=True) is None
    for gpu, expected in ((True, (1, True)), (False, (2, False))):
        workers = find_fitting_workers(Recipe(), None, one_gpu, gpu)
        assert workers is not None
        assert (workers.count, workers.gpu) == expected


def test_nodes_that_are_too_small_hold_no_workers() -> None:
    assert find_fitting_workers(Recipe(), 3, [{"CPU": 2}]) is None
    assert find_fitting_workers(Recipe(), None, [{"CPU": 0}]) is None
