"""Which image fails when the network raises, with a function in place of the network."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import imaging
from pipeline.detector.predictor import ImageDetections
from pipeline.engine.detect.chunk_detector import (
    MAX_GROUP_BYTES,
    ChunkDetector,
    split_into_groups,
)
from pipeline.errors import InvalidCheckpoint
from pipeline.imaging import AS_STORED, Decoding
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report

ROOT = Path(__file__).parents[3]


class Ended(BaseException):
    """The end of the process, as an exception."""


def _end(code: int) -> None:
    raise Ended(code)


def encode_image(name: str, width: int = 8, height: int = 6) -> EncodedImage:
    """A black image with one proposal."""
    data = imaging.encode_png(np.zeros((height, width, 3), np.uint8))
    boxes = np.array([[0, 0, 4, 4]], np.float32)
    return EncodedImage(name, name, width, height, data, boxes)


class FailingNetwork:
    """Detects nothing, and raises an error if one of the images has a certain width."""

    def __init__(self, width: int, error: Exception) -> None:
        self.width = width
        self.error = error
        self.calls: list[list[int]] = []

    def __call__(self, images: Sequence[Any], boxes: Sequence[Any]) -> list[ImageDetections]:
        self.calls.append([image.shape[1] for image in images])
        if self.width in self.calls[-1]:
            raise self.error
        nothing = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, np.int32))
        return [nothing for _ in images]


def _detect(network: FailingNetwork, *, one_by_one: bool = False) -> list[EncodedImage]:
    """Detect in images of widths 8, 9 and 10; only those without a failure have detections."""
    detector = ChunkDetector(network, one_by_one=one_by_one, image_seconds=60.0, threads=1)
    encoded_images = [encode_image("a", 8), encode_image("b", 9), encode_image("c", 10)]
    detections = detector.detect(encoded_images, Report())
    assert [d is None for d in detections] == [e.failure is not None for e in encoded_images]
    return encoded_images


@pytest.mark.parametrize(
    "error",
    [
        *(RuntimeError("shape"), IndexError("index"), torch.OutOfMemoryError("full")),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_only_the_image_whose_detection_raises_fails(error: Exception) -> None:
    network = FailingNetwork(9, error)
    failures = [encoded.failure for encoded in _detect(network)]
    assert failures[0] is failures[2] is None
    assert failures[1] is not None
    assert (failures[1].stage, failures[1].error_type) == ("detect", type(error).__name__)
    assert network.calls == [[8, 9, 10], [8], [9], [10]]
    alone = FailingNetwork(9, error)
    assert [e.failure is None for e in _detect(alone, one_by_one=True)] == [True, False, True]
    assert alone.calls == [[8], [9], [10]]


def test_a_lost_device_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """All later images would fail: after a device-side assert nothing runs on a GPU any more."""
    monkeypatch.setattr(os, "_exit", _end)
    network = FailingNetwork(9, torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(Ended):
        _detect(network)
    assert len(network.calls) == 1


@pytest.mark.parametrize("error", [InvalidCheckpoint("it changed"), OSError("disk full")])
def test_an_error_that_is_not_an_images_fault_fails_none(error: Exception) -> None:
    with pytest.raises(type(error)):
        _detect(FailingNetwork(9, error))


def test_an_image_that_cannot_be_decoded_fails_and_the_others_are_detected() -> None:
    network = FailingNetwork(-1, RuntimeError())
    detector = ChunkDetector(network, one_by_one=False, image_seconds=60.0, threads=2)
    damaged, good = encode_image("a"), encode_image("b", 9)
    damaged.data = b"no image"
    report = Report()
    detections = detector.detect([damaged, good], report)
    assert detections[0] is None
    assert detections[1] is not None
    assert damaged.failure is not None
    assert damaged.failure.stage == "decode"
    assert network.calls == [[9]]
    assert {"wait", "decode", "detect"} <= set(report.seconds)


def _decode_one(encoded: EncodedImage, decoding: Decoding = AS_STORED) -> EncodedImage:
    network = FailingNetwork(-1, RuntimeError())
    detector = ChunkDetector(
        network, one_by_one=True, image_seconds=60.0, threads=1, decoding=decoding
    )
    (detections,) = detector.detect([encoded], Report())
    assert (detections is None) == (encoded.failure is not None)
    return encoded


@pytest.mark.parametrize(
    ("stated", "proposed", "message"),
    [
        ((8, 6), (8, 6), None),
        ((9, 5), (8, 6), None),  # labelling tools round
        (None, (None, None), None),
        ((6, 8), (8, 6), "annotated as 6x8, stored as 8x6: rotated by EXIF?"),
        ((80, 60), (8, 6), "annotated as 80x60, stored as 8x6: resized or replaced?"),
        (None, (8, 7), "its proposals are for 8x7 pixels, the image has 8x6"),
        ((8, 6), (6, 8), "its proposals are for 6x8 pixels, the image has 8x6"),
    ],
)
def test_boxes_for_another_size_fail_the_image(
    stated: tuple[int, int] | None, proposed: tuple[int | None, int | None], message: str | None
) -> None:
    encoded = encode_image("a")
    encoded.stated_size, (encoded.width, encoded.height) = stated, proposed
    failure = _decode_one(encoded).failure
    assert (encoded.width, encoded.height) == (8, 6)
    if message is None:
        assert failure is None
    else:
        assert failure is not None
        assert (failure.stage, failure.error_type) == ("decode", "SizeMismatch")
        assert message in failure.message


def test_sizes_are_those_of_the_displayed_image_if_the_manifest_says_so() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "PNG", exif=exif)
    for decoding, size in ((AS_STORED, (8, 6)), (Decoding(exif="apply"), (6, 8))):
        encoded = encode_image("a")
        encoded.data = buffer.getvalue()
        encoded.stated_size, (encoded.width, encoded.height) = size, size
        assert _decode_one(encoded, decoding).failure is None
        assert (encoded.width, encoded.height) == size
    encoded.stated_size = (8, 6)
    failure = _decode_one(encoded, Decoding(exif="apply")).failure
    assert failure is not None
    assert "annotated as 8x6, displayed as 6x8" in failure.message


def test_groups_are_bounded_in_number_and_bytes() -> None:
    side = int((MAX_GROUP_BYTES / 3 / 2.5) ** 0.5)  # two and a half fit
    unknown = EncodedImage("unknown", "", failure=None)
    large, small = EncodedImage("l", "", side, side), EncodedImage("s", "", 10, 10)
    huge = EncodedImage("h", "", 2 * side, 2 * side)
    images = [small, large, large, large, huge, small, unknown, small]
    groups = [
        "".join(encoded.image_id[0] for encoded in group) for group in split_into_groups(images, 3)
    ]
    assert groups == ["sll", "l", "h", "sus"]
    assert [len(group) for group in split_into_groups([small] * 7, 3)] == [3, 3, 1]
    assert list(split_into_groups([], 3)) == []


HOLDS_THE_LOCK = """
import ctypes
from pipeline import imaging
from pipeline.engine.detect.chunk_detector import ChunkDetector
from pipeline.runs.report import Report
from tests.engine.detect.test_chunk_detector import FailingNetwork, encode_image

image = encode_image("a")
# PyDLL keeps the interpreter's lock.
imaging.decode_image = lambda data, decoding: ctypes.PyDLL(None).sleep(60)
network = FailingNetwork(-1, RuntimeError())
ChunkDetector(network, one_by_one=True, image_seconds=1.0, threads=1).detect([image], Report())
"""


def test_a_decoder_that_holds_the_interpreters_lock_ends_a_new_detector() -> None:
    """Its pool has no thread yet: the first decoding starts while the pool creates one."""
    process = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_LOCK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert process.returncode == 1
    assert "Timeout (0:00:01)!" in process.stderr
