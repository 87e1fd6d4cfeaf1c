"""The fault suite in short: fewer images, and the faults that reach furthest into the engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import pytest

from tests.chaos import image_faults, process_faults, store_faults
from tests.chaos.__main__ import Fault
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage, set_up
from tests.swift import Swift

IMAGES = 72
ON_DISK: dict[str, Fault] = {
    "driver_killed": process_faults.driver_killed,
    "node_killed_another_joins": process_faults.node_killed_another_joins,
    "poison_images": functools.partial(image_faults.poison_images, deeds=("crash", "detector")),
}
IN_STORE: dict[str, Fault] = {
    "store_reset": store_faults.trouble("reset", share=0.7, lasting=5.0),
}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with set_up(IMAGES, store=Swift.missing() is None) as ready:
        yield ready


@pytest.mark.parametrize("name", [*ON_DISK, *IN_STORE])
def test_every_image_once_and_as_undisturbed(name: str, stage: Stage) -> None:
    if name in IN_STORE and stage.stored is None:
        pytest.skip(str(Swift.missing()))
    result = (ON_DISK | IN_STORE)[name](stage)
    for outcome in result if isinstance(result, list) else [result]:
        assert outcome.right, outcome


def test_what_counts_as_right() -> None:
    undisturbed = Outcome("none", 0, 72, 0, 0, 0, 0, ("a",), ("a",), 1.0)
    assert undisturbed.right
    for wrong in (
        {"lost": 1},
        {"doubled": 1},
        {"differing": 1},
        {"failed": ()},
        {"failed": ("a", "b")},
        {"reruns": 1},
        {"redone": 4},
    ):
        assert not dataclasses.replace(undisturbed, **wrong).right
    assert dataclasses.replace(undisturbed, reruns=1, allowed_reruns=1).right
    assert dataclasses.replace(undisturbed, redone=4, allowed_redone=4).right
