"""The detector actor's own decisions, tried in this process with a stand-in for the network."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import imaging
from pipeline.detector.predictor import Detections
from pipeline.engine.detect import actor as detector_actor
from pipeline.engine.detect.actor import DetectorActor, cut_in_groups
from pipeline.errors import InvalidCheckpoint, NoCapacity
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report

Actor = DetectorActor.__ray_metadata__.modified_class  # type: ignore[attr-defined]


class Ended(BaseException):
    """Stands for the end of the process."""


def _end(code: int) -> None:
    raise Ended(code)


def _image(name: str, width: int = 8, height: int = 6) -> EncodedImage:
    data = imaging.encode_png(np.zeros((height, width, 3), np.uint8))
    boxes = np.array([[0, 0, 4, 4]], np.float32)
    return EncodedImage(name, name, width, height, data, boxes)


class Network:
    """Finds nothing, and raises what it is told when an image of this width is among its own."""

    def __init__(self, width: int, error: Exception) -> None:
        self.width = width
        self.error = error
        self.calls: list[list[int]] = []

    def __call__(self, decoded: Sequence[Any], boxes: Sequence[Any]) -> list[Detections]:
        self.calls.append([image.shape[1] for image in decoded])
        if self.width in self.calls[-1]:
            raise self.error
        nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int32))
        return [nothing for _ in decoded]


def _actor(device: str, seconds: float = 60.0) -> Any:
    plan = SimpleNamespace(
        stores=None, device=device, image_seconds=seconds, threads=1, classes=("a",), fingerprint=""
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.store_options.use", lambda stores: None)
        return Actor(plan, "fp32")


def _detect(network: Network, device: str = "cuda") -> list[EncodedImage]:
    actor = _actor(device)
    actor._loaded = network
    encoded_images = [_image("a", 8), _image("b", 9), _image("c", 10)]
    table = actor._detect_chunk(encoded_images, Report())
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    return encoded_images


@pytest.mark.parametrize(
    "error", [RuntimeError("shape"), IndexError("index"), torch.OutOfMemoryError("full")]
)
def test_only_the_image_that_cannot_be_detected_in_is_failed(error: Exception) -> None:
    network = Network(9, error)
    failures = [encoded.failure for encoded in _detect(network)]
    assert failures[0] is failures[2] is None
    assert (failures[1].stage, failures[1].error_type) == ("detect", type(error).__name__)
    assert network.calls == [[8, 9, 10], [8], [9], [10]]
    one_by_one = Network(9, error)
    assert [encoded.failure is None for encoded in _detect(one_by_one, "cpu")] == [
        True,
        False,
        True,
    ]
    assert one_by_one.calls == [[8], [9], [10]]


def test_a_lost_device_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images after it would all fail: after a device-side assert nothing runs on a GPU any more."""
    monkeypatch.setattr(os, "_exit", _end)
    network = Network(9, torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(Ended):
        _detect(network)
    assert len(network.calls) == 1


@pytest.mark.parametrize("error", [InvalidCheckpoint("it changed"), OSError("disk full")])
def test_what_is_no_images_fault_fails_none(error: Exception) -> None:
    with pytest.raises(type(error)):
        _detect(Network(9, error))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_does_not_work_is_told_with_its_node() -> None:
    with pytest.raises(NoCapacity, match=rf"cuda does not work on {platform.node()}: "):
        _actor("cuda").ready()


def test_groups_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_actor, "GROUP", 3)
    side = int((detector_actor.GROUP_BYTES / 3 / 2.5) ** 0.5)  # two and a half fit
    unknown = EncodedImage("unknown", "", failure=None)
    large, small = EncodedImage("l", "", side, side), EncodedImage("s", "", 10, 10)
    huge = EncodedImage("h", "", 2 * side, 2 * side)
    cut = [
        "".join(encoded.image_id[0] for encoded in group)
        for group in cut_in_groups([small, large, large, large, huge, small, unknown, small])
    ]
    assert cut == ["sll", "l", "h", "sus"]
    assert [len(group) for group in cut_in_groups([small] * 7)] == [3, 3, 1]
    assert list(cut_in_groups([])) == []


HOLDS_THE_LOCK = """
import ctypes, sys
from tests.engine import test_detector_actor as tests
from pipeline import imaging
from pipeline.runs.report import Report
images.decode = lambda data: ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock
actor = tests._actor("cpu", seconds=1.0)
actor._loaded = tests.Network(-1, RuntimeError())
actor._detect_chunk([tests._image("a")], Report())
"""


def test_a_decoder_that_holds_the_interpreters_lock_ends_a_fresh_actor() -> None:
    """Its pool of threads has none yet: the first decoding starts while one is being made."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_LOCK],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert "Timeout (0:00:01)!" in done.stderr
