"""Validation during training: the score is that of the analysis over the same detections."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.detector.preprocessing import Preprocessing
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.sources.drawn_dataset import CLASSES, DrawnImage
from tests.training.training_dataset import write_dataset

PREPROCESSING = Preprocessing(short_side=64, max_side=96)


class Oracle:
    """A predictor that detects every drawn object, in the first `images` images alone."""

    def __init__(self, drawn: list[DrawnImage], images: int) -> None:
        self.left = iter(drawn[:images])

    def __call__(self, images: list[np.ndarray], proposals: list[np.ndarray]) -> list[object]:
        from pipeline.detector.predictor import ImageDetections

        assert len(images) == len(proposals) == 1
        image = next(self.left, None)
        if image is None:
            nothing = np.zeros((0, 4), np.float32)
            return [ImageDetections(nothing, np.zeros(0, np.float32), np.zeros(0, np.int32))]
        labels = np.array([CLASSES.index(label) for label in image.labels], np.int32)
        return [ImageDetections(image.boxes, np.ones(len(labels), np.float32), labels)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[DrawnImage]]:
    return write_dataset(tmp_path_factory.mktemp("drawn"))


def score(
    data: tuple[str, str, list[DrawnImage]],
    monkeypatch: pytest.MonkeyPatch,
    detected: int,
    images: int = 500,
) -> float:
    validator = Validation(data[0], data[1], images=images).open_validator(CLASSES)
    assert validator is not None
    oracle = Oracle(data[2], detected)
    monkeypatch.setattr("pipeline.detector.predictor.Predictor", lambda checkpoint, device: oracle)
    return validator(None, PREPROCESSING)  # type: ignore[arg-type]


def test_the_network_computes_on_the_device_of_its_worker(
    data: tuple[str, str, list[DrawnImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = Validation(data[0], data[1], images=1).open_validator(CLASSES)
    assert validator is not None
    devices: list[str] = []

    def build(checkpoint: object, device: str) -> Oracle:
        devices.append(device)
        return Oracle(data[2], 1)

    monkeypatch.setattr("pipeline.detector.predictor.Predictor", build)
    validator(None, PREPROCESSING, "cuda:1")  # type: ignore[arg-type]
    validator(None, PREPROCESSING)  # type: ignore[arg-type]
    assert devices == ["cuda:1", "auto"]


def test_detecting_every_object_scores_one(
    data: tuple[str, str, list[DrawnImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(data, monkeypatch, detected=8) == pytest.approx(1.0)
    assert score(data, monkeypatch, detected=0) == 0.0
    assert 0.1 < score(data, monkeypatch, detected=4) < 0.9


def test_only_the_first_images_are_scored(
    data: tuple[str, str, list[DrawnImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(data, monkeypatch, detected=4, images=4) == pytest.approx(1.0)


def test_objects_of_an_unreadable_image_count_as_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, proposals, drawn = write_dataset(tmp_path, images=4)
    storage.put(str(tmp_path / "images" / "p0.png"), b"no image")
    data = (manifest, proposals, drawn[1:])
    assert 0.1 < score(data, monkeypatch, detected=3) < 1.0


def test_a_real_network_is_scored(data: tuple[str, str, list[DrawnImage]]) -> None:
    from pipeline.detector.architecture import Architecture
    from pipeline.detector.network import build_network

    validator = Validation(data[0], data[1], images=2).open_validator(CLASSES)
    assert validator is not None
    assert 0 <= validator(build_network(Architecture(CLASSES, "tiny")), PREPROCESSING) <= 1


def test_wrong_validation_options_are_rejected(data: tuple[str, str, list[DrawnImage]]) -> None:
    assert Validation().open_validator(CLASSES) is None
    whole = Validation(data[0], data[1])
    with pytest.raises(InvalidConfiguration, match=r"needs --validation\.proposals"):
        Validation(data[0]).open_validator(CLASSES)
    with pytest.raises(InvalidConfiguration, match="other classes"):
        whole.open_validator(("cat",))
    with pytest.raises(
        InvalidConfiguration, match=r"--validation\.every is 0, expected at least 1"
    ):
        dataclasses.replace(whole, every=0).open_validator(CLASSES)
