"""A short form of the fault suite: fewer images, and the faults that reach deepest into the engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import pytest

from tests.chaos import image_faults, process_faults, store_faults
from tests.chaos.__main__ import Fault
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage, set_up_stage
from tests.swift import Swift

IMAGES = 72
ON_DISK: dict[str, Fault] = {
    "driver_killed": process_faults.kill_driver,
    "node_killed_another_joins": process_faults.kill_node_and_add_another,
    "poison_images": functools.partial(image_faults.poison_images, deeds=("crash", "detector")),
}
IN_STORE: dict[str, Fault] = {
    "store_reset": store_faults.build_store_fault("reset", share=0.7, lasting=5.0),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with set_up_stage(IMAGES, store=Swift.find_obstacle() is None) as running:
        yield running


@pytest.mark.parametrize("name", [*ON_DISK, *IN_STORE])
def test_every_image_is_there_once_and_as_undisturbed(name: str, stage: Stage) -> None:
    if name in IN_STORE and stage.stored is None:
        pytest.skip(str(Swift.find_obstacle()))
    result = (ON_DISK | IN_STORE)[name](stage)
    for outcome in result if isinstance(result, list) else [result]:
        assert outcome.is_right, outcome


def test_any_lost_doubled_or_differing_image_is_wrong() -> None:
    undisturbed = Outcome("none", 0, 72, 0, 0, 0, 0, ("a",), ("a",), 1.0)
    assert undisturbed.is_right
    for wrong in (
        {"lost": 1},
        {"doubled": 1},
        {"differing": 1},
        {"failed": ()},
        {"failed": ("a", "b")},
        {"reruns": 1},
        {"redone": 4},
    ):
        assert not dataclasses.replace(undisturbed, **wrong).is_right
    assert dataclasses.replace(undisturbed, reruns=1, allowed_reruns=1).is_right
    assert dataclasses.replace(undisturbed, redone=4, allowed_redone=4).is_right
