"""SVMs and hard negatives on toy sets whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline.baselines import svm
from pipeline.baselines.predictor import compute_scores
from pipeline.baselines.settings import BaselineSettings
from pipeline.baselines.svm import (
    HardNegativeTrainer,
    WindowBatch,
    measure_scale,
    mine_until_done,
)
from pipeline.errors import UnreadableDataset

SETTINGS = BaselineSettings(svm_c=1.0)


def build_batches(hard: int = 40) -> list[WindowBatch]:
    """Objects at (2, 0); in the first batch ten negatives at (-2, 0), in the others easy ones at (-3, 0).

    The last batch has `hard` negatives near (1, -2), which an SVM without them takes for objects.
    """
    rng = np.random.default_rng(0)
    batches = []
    for number in range(5):
        objects = np.tile([2.0, 0.0], (4, 1))
        easy = np.tile([-2.0, 0.0], (10, 1)) if number == 0 else np.tile([-3.0, 0.0], (40, 1))
        hard_ones = rng.normal([1, -2], 0.05, (hard if number == 4 else 0, 2))
        vectors = np.concatenate([objects, easy, hard_ones]).astype(np.float32)
        labels = np.repeat([1, 0], [4, len(vectors) - 4]).astype(np.int32)
        overlaps = np.where(labels == 1, 1.0, 0.0)[:, None].astype(np.float32)
        batches.append(WindowBatch(vectors, overlaps, labels))
    return batches


@pytest.fixture
def first_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten negatives of the first batch, so that mining has something to find."""
    monkeypatch.setattr(svm, "_draw_first_negatives", lambda *_: np.arange(4, 14, dtype=np.int64))


def test_mining_finds_the_hard_negatives_and_the_svm_rejects_them_afterwards(
    first_negatives: None,
) -> None:
    batches = build_batches()
    trainer = HardNegativeTrainer(lambda: batches, 1, SETTINGS, seed=0)
    hard = batches[-1].vectors[-40:]
    assert (trainer.scores.compute(hard) > 0).all()  # on the side of the objects
    first, *later = list(mine_until_done(trainer, 5))
    assert first.new_negatives == (40,)
    assert (trainer.scores.compute(hard) < 0).all()
    objects = np.concatenate([b.vectors[b.labels == 1] for b in batches])
    assert (trainer.scores.compute(objects) > 0).all()
    assert later[-1].new_negatives == (0,)  # no pass follows one that finds nothing
    assert len(later) < 4


def test_a_window_that_overlaps_its_object_is_no_negative(first_negatives: None) -> None:
    batches = build_batches()
    last = batches[-1]
    overlaps = last.overlaps.copy()
    overlaps[-40:] = 0.3  # the limit itself
    batches[-1] = WindowBatch(last.vectors, overlaps, last.labels)
    trainer = HardNegativeTrainer(lambda: batches, 1, SETTINGS, seed=0)
    assert trainer.mine().new_negatives == (0,)


def test_easy_negatives_leave_the_cache(first_negatives: None) -> None:
    trainer = HardNegativeTrainer(build_batches, 1, SETTINGS, seed=0)
    outputs = trainer.scores.compute(trainer._negatives[0])
    assert (outputs >= svm.EASY_OUTPUT).all()


def test_many_new_negatives_train_within_the_pass(
    first_negatives: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "RETRAIN_AFTER", 10)
    trainings: list[int] = []
    train = HardNegativeTrainer._train

    def count(self: HardNegativeTrainer, label: int) -> None:
        trainings.append(label)
        train(self, label)

    monkeypatch.setattr(HardNegativeTrainer, "_train", count)
    trainer = HardNegativeTrainer(build_batches, 1, SETTINGS, seed=0)
    trainings.clear()
    trainer.mine()
    assert trainings == [0]  # 40 new ones at once: within the pass, and none are left for its end


def test_a_class_without_objects_scores_everything_as_negative() -> None:
    batches = [
        WindowBatch(b.vectors, np.tile(b.overlaps, 2) * [1, 0], b.labels) for b in build_batches()
    ]
    trainer = HardNegativeTrainer(lambda: batches, 2, SETTINGS, seed=0)
    trainer.mine()
    outputs = trainer.scores.compute(batches[0].vectors)
    scores = compute_scores(torch.from_numpy(outputs))
    assert (scores[:, 1] < 0.001).all()  # far below any threshold of detections


@pytest.mark.parametrize(("windows", "expected"), [(100, 25), (20_000, 2000)])
def test_the_first_windows_are_2000_and_no_more_than_a_quarter(windows: int, expected: int) -> None:
    batch = WindowBatch(
        np.zeros((windows, 1), np.float32),
        np.zeros((windows, 1), np.float32),
        np.zeros(windows, np.int32),
    )
    drawn = svm._draw_first_negatives(lambda: [batch], 0)
    assert len(np.unique(drawn)) == expected


def test_a_weighted_positive_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One positive at 1 among five negatives at 1: with equal weights the SVM says no."""
    monkeypatch.setattr(svm, "MOST_FIRST", 1.0)
    vectors = np.ones((6, 1), np.float32)
    labels = np.array([1, 0, 0, 0, 0, 0], np.int32)
    batch = WindowBatch(vectors, (labels == 1)[:, None].astype(np.float32), labels)
    outputs = []
    for weight in (1.0, 20.0):
        settings = BaselineSettings(svm_c=0.1, svm_positive_weight=weight)
        scores = HardNegativeTrainer(lambda: [batch], 1, settings, seed=0).scores
        outputs.append(float(scores.compute(vectors[:1])[0, 0]))
    assert outputs[0] < 0 < outputs[1]


def test_without_objects_or_windows_there_is_nothing_to_train_on() -> None:
    with pytest.raises(UnreadableDataset, match="no stored windows"):
        HardNegativeTrainer(list, 1, SETTINGS, seed=0)
    easy = WindowBatch(
        np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32), np.zeros(3, np.int32)
    )
    with pytest.raises(UnreadableDataset, match="no stored window shows an object"):
        HardNegativeTrainer(lambda: [easy], 1, SETTINGS, seed=0)


def test_features_are_scaled_to_a_mean_norm_of_20() -> None:
    def read() -> Iterator[np.ndarray]:
        yield np.array([[3, 4]], np.float32)
        yield np.array([[0, 15]], np.float32)

    assert measure_scale(read()) == pytest.approx(2.0)  # norms 5 and 15
    assert measure_scale([np.zeros((2, 3), np.float32)]) == 1.0
