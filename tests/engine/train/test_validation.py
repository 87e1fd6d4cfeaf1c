"""Validation while training: the score is that of analysis over detections of the same images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.detector.preprocessing import Preprocessing
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.sources.drawn import CLASSES, DrawnImage
from tests.training.drawn import make_dataset

PREPROCESSING = Preprocessing(short_side=64, max_side=96)


class Oracle:
    """A predictor that finds what was drawn, in as many images as told."""

    def __init__(self, drawn: list[DrawnImage], known: int) -> None:
        self.left = iter(drawn[:known])

    def __call__(self, images: list[np.ndarray], proposals: list[np.ndarray]) -> list[object]:
        from pipeline.detector.predictor import Detections

        assert len(images) == len(proposals) == 1
        image = next(self.left, None)
        if image is None:
            nothing = np.zeros((0, 4), np.float32)
            return [Detections(nothing, np.zeros(0, np.float32), np.zeros(0, np.int32))]
        labels = np.array([CLASSES.index(label) for label in image.labels], np.int32)
        return [Detections(image.boxes, np.ones(len(labels), np.float32), labels)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[DrawnImage]]:
    return make_dataset(tmp_path_factory.mktemp("drawn"))


def score(
    data: tuple[str, str, list[DrawnImage]],
    monkeypatch: pytest.MonkeyPatch,
    known: int,
    images: int = 500,
) -> float:
    validator = Validation(data[0], data[1], images=images).validator(CLASSES)
    assert validator is not None
    oracle = Oracle(data[2], known)
    monkeypatch.setattr("pipeline.detector.predictor.Predictor", lambda checkpoint: oracle)
    return validator(None, PREPROCESSING)  # type: ignore[arg-type]


def test_finding_everything_scores_one(
    data: tuple[str, str, list[DrawnImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(data, monkeypatch, known=8) == pytest.approx(1.0)
    assert score(data, monkeypatch, known=0) == 0.0
    assert 0.1 < score(data, monkeypatch, known=4) < 0.9


def test_only_the_first_images_count(
    data: tuple[str, str, list[DrawnImage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(data, monkeypatch, known=4, images=4) == pytest.approx(1.0)


def test_objects_of_an_unreadable_image_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_dataset(tmp_path, images=4)
    storage.put(str(tmp_path / "images" / "p0.png"), b"no image")
    made = (made[0], made[1], made[2][1:])
    assert 0.1 < score(made, monkeypatch, known=3) < 1.0


def test_a_real_network_is_scored(data: tuple[str, str, list[DrawnImage]]) -> None:
    from pipeline.detector.network import Architecture, build

    validator = Validation(data[0], data[1], images=2).validator(CLASSES)
    assert validator is not None
    assert 0 <= validator(build(Architecture(CLASSES, "tiny")), PREPROCESSING) <= 1


def test_what_cannot_be_validated_is_refused(data: tuple[str, str, list[DrawnImage]]) -> None:
    assert Validation().validator(CLASSES) is None
    whole = Validation(data[0], data[1])
    with pytest.raises(InvalidConfiguration, match=r"needs --validation\.proposals"):
        Validation(data[0]).validator(CLASSES)
    with pytest.raises(InvalidConfiguration, match="other classes"):
        whole.validator(("cat",))
    with pytest.raises(InvalidConfiguration, match="start at 1"):
        dataclasses.replace(whole, every=0).validator(CLASSES)
