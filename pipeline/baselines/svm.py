"""One linear SVM per class, trained with hard negatives that are mined from all stored windows.

R-CNN, section 2.3 and appendix B; `rcnn_train.m` of the released code. Positives are the objects, negatives
the windows whose IoU with all objects of the class is below 0.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import LinearSVC

from pipeline.baselines.settings import BaselineSettings
from pipeline.errors import UnreadableDataset
from pipeline.training.sample_order import make_generator

TARGET_NORM = 20.0
"""Mean norm of the features that C and the ridge are chosen for (`rcnn_scale_features.m`)."""
HARD_OUTPUT = -1.0001
"""A negative above this output is hard: it violates the margin."""
EASY_OUTPUT = -1.2
"""A negative below this output is dropped from the cache."""
RETRAIN_AFTER = 2000
"""New hard negatives of a class after which its SVM is trained again within a pass."""
FIRST_NEGATIVES = 2000
"""Windows that the first SVMs are trained on, drawn from all images; the released code takes all windows of
the first image."""
MOST_FIRST = 0.25
"""The first windows are no larger share of all: the others are there to be mined."""
MOST_ITERATIONS = 5000
WITHOUT_OBJECTS = -10.0
"""Output of a class that no training image shows: far below those of windows that are no object, about -1,
whose probability as a detection would be 0.12."""


@dataclass(frozen=True)
class WindowBatch:
    """Windows of some images with their features, already scaled."""

    vectors: NDArray[np.float32]
    """`(N, D)`."""
    overlaps: NDArray[np.float32]
    """`(N, K)`: largest IoU with an object of each class."""
    labels: NDArray[np.int32]
    """`(N,)`: 0 for a proposal, else the object's class counted from 1."""


ReadWindows = Callable[[], Iterable[WindowBatch]]
"""Reads all stored windows once, in the same order each time."""


@dataclass(frozen=True)
class LinearScores:
    """Linear functions of features, one per class."""

    weight: NDArray[np.float32]
    """`(K, D)`."""
    bias: NDArray[np.float32]
    """`(K,)`."""

    def compute(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs `(N, K)` of vectors `(N, D)`."""
        outputs: NDArray[np.float32] = vectors @ self.weight.T + self.bias
        return outputs


@dataclass(frozen=True)
class MiningPass:
    """What one pass over all windows found."""

    number: int
    """From 1; 0 is the training on the first negatives."""
    new_negatives: tuple[int, ...]
    """Per class, how many hard negatives the pass added."""
    cached_negatives: tuple[int, ...]
    """Per class, how many negatives the SVM was last trained on."""


class HardNegativeTrainer:
    """Trains the SVMs of all classes pass by pass."""

    def __init__(
        self, read_windows: ReadWindows, classes: int, settings: BaselineSettings, seed: int
    ) -> None:
        """Gather the positives and the first negatives, and train on them.

        Args:
            read_windows: reads the windows of the training images.
            classes: K.
            settings: C, bias, weight of positives, the limit of negatives.
            seed: of the first negatives.

        Raises:
            UnreadableDataset: there is no window, or no object.
        """
        self._read_windows = read_windows
        self._settings = settings
        drawn = _draw_first_negatives(read_windows, seed)
        positives: list[list[NDArray[np.float32]]] = [[] for _ in range(classes)]
        negatives: list[list[NDArray[np.float32]]] = [[] for _ in range(classes)]
        keys: list[list[NDArray[np.int64]]] = [[] for _ in range(classes)]
        first = 0
        for batch in read_windows():
            rows = np.flatnonzero(np.isin(np.arange(first, first + len(batch.labels)), drawn))
            for label in range(classes):
                positives[label].append(batch.vectors[batch.labels == label + 1])
                own = rows[batch.overlaps[rows, label] < settings.svm_negative_iou]
                negatives[label].append(batch.vectors[own])
                keys[label].append(own + first)
            first += len(batch.labels)
        self._positives = [np.concatenate(vectors) for vectors in positives]
        self._negatives = [np.concatenate(vectors) for vectors in negatives]
        self._keys = [np.concatenate(numbers) for numbers in keys]
        width = self._positives[0].shape[1]
        if not sum(map(len, self._positives)):
            raise UnreadableDataset(
                "no stored window shows an object: there is nothing to train on"
            )
        self._weight = np.zeros((classes, width), np.float32)
        has_objects = np.array([len(vectors) > 0 for vectors in self._positives])
        self._bias = np.where(has_objects, -1.0, WITHOUT_OBJECTS).astype(np.float32)
        self.passes = [MiningPass(0, tuple(map(len, self._keys)), tuple(map(len, self._keys)))]
        """The passes so far."""
        for label in range(classes):
            self._train(label)

    @property
    def scores(self) -> LinearScores:
        """The SVMs so far, for scaled features."""
        return LinearScores(self._weight.copy(), self._bias.copy())

    def mine(self) -> MiningPass:
        """Go through all windows once, collect the hard negatives, and train on them.

        A class is trained again whenever more than `RETRAIN_AFTER` negatives are new, and at the end.
        """
        classes = len(self._positives)
        added, waiting = [0] * classes, [0] * classes
        first = 0
        for batch in self._read_windows():
            outputs = self.scores.compute(batch.vectors)
            numbers = np.arange(first, first + len(batch.labels))
            for label in range(classes):
                is_hard = (outputs[:, label] > HARD_OUTPUT) & (
                    batch.overlaps[:, label] < self._settings.svm_negative_iou
                )
                rows = np.flatnonzero(is_hard)
                rows = rows[~np.isin(numbers[rows], self._keys[label])]
                if not len(rows) or not len(self._positives[label]):
                    continue
                self._negatives[label] = np.concatenate(
                    [self._negatives[label], batch.vectors[rows]]
                )
                self._keys[label] = np.concatenate([self._keys[label], numbers[rows]])
                added[label] += len(rows)
                waiting[label] += len(rows)
                if waiting[label] > RETRAIN_AFTER:
                    self._train(label)
                    waiting[label] = 0
            first += len(batch.labels)
        trained_on = tuple(map(len, self._keys))
        for label in range(classes):
            if waiting[label]:
                self._train(label)
        done = MiningPass(len(self.passes), tuple(added), trained_on)
        self.passes.append(done)
        return done

    def _train(self, label: int) -> None:
        """Train one class on its cache, then drop the negatives that it scores as easy."""
        positives, negatives = self._positives[label], self._negatives[label]
        if not len(positives) or not len(negatives):
            return
        settings = self._settings
        # liblinear's solver 3 with -B and -w1, as the released code calls it.
        machine = LinearSVC(
            C=settings.svm_c,
            loss="hinge",
            dual=True,
            intercept_scaling=settings.svm_bias,
            class_weight={1: settings.svm_positive_weight},
            max_iter=MOST_ITERATIONS,
            random_state=0,
        )
        vectors = np.concatenate([positives, negatives])
        machine.fit(vectors, np.repeat([1, -1], [len(positives), len(negatives)]))
        self._weight[label] = machine.coef_[0]
        self._bias[label] = machine.intercept_[0]
        outputs = negatives @ self._weight[label] + self._bias[label]
        is_needed = outputs >= EASY_OUTPUT
        self._negatives[label] = negatives[is_needed]
        self._keys[label] = self._keys[label][is_needed]


def _draw_first_negatives(read_windows: ReadWindows, seed: int) -> NDArray[np.int64]:
    """The numbers of the first windows, counted over all."""
    total = sum(len(batch.labels) for batch in read_windows())
    if not total:
        raise UnreadableDataset("there are no stored windows to train on")
    count = min(FIRST_NEGATIVES, ceil(MOST_FIRST * total))
    drawn: NDArray[np.int64] = np.sort(
        make_generator(seed, "negatives").choice(total, count, replace=False)
    )
    return drawn


def measure_scale(vectors: Iterable[NDArray[np.float32]]) -> float:
    """The factor that gives the features a mean norm of 20."""
    total, count = 0.0, 0
    for batch in vectors:
        total += float(np.linalg.norm(batch.astype(np.float64), axis=1).sum())
        count += len(batch)
    return TARGET_NORM * count / total if total > 0 else 1.0


def mine_until_done(trainer: HardNegativeTrainer, passes: int) -> Iterator[MiningPass]:
    """Mine up to `passes` times, and no longer than hard negatives appear; yields each pass."""
    for _ in range(passes):
        done = trainer.mine()
        yield done
        if not sum(done.new_negatives):
            return
