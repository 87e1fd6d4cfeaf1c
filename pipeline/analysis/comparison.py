"""Two runs over the same images: `compare(first, second, manifest) -> Comparison`.

The interval is a paired bootstrap's (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): images are drawn with replacement, both runs are scored on the same draw, and the
percentiles of the difference are reported. It tells how far another sample of images might move the
difference; how far another training might is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import schema, shards, storage
from pipeline.analysis.bootstrap import Weights, resampled, weighted_average_precision
from pipeline.analysis.classes import annotated_classes, compare_classes
from pipeline.analysis.coverage import coverage_notes
from pipeline.analysis.joined import check_holds
from pipeline.analysis.matches import Matches, match_run
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.shards import Parts

CONFIDENCE = 0.95
WEIGHTS_AT_ONCE = 2**26
"""Weights of detections that are held at once: a quarter of a gigabyte."""


@dataclass(frozen=True)
class Difference:
    """One score of both runs; None where no object counts."""

    first: float | None
    second: float | None
    difference: float | None
    """The second less the first."""
    low: float | None
    """The 2.5th percentile of the difference over the resamples."""
    high: float | None
    """The 97.5th."""


@dataclass(frozen=True)
class ClassComparison:
    """One class."""

    label: str
    objects: int
    ap11: Difference
    ap_area: Difference


@dataclass(frozen=True)
class Comparison:
    """How the second run's detections differ from the first's, in average precision at IoU 0.5."""

    voc07_map50: Difference
    """VOC2007's 11-point mean AP; means go over the classes that have objects."""
    voc_map50: Difference
    """VOC2010's area mean AP."""
    images: int
    """Annotated images, all of which a resample draws as many of."""
    resamples: int
    seed: int
    confidence: float
    per_class: tuple[ClassComparison, ...]
    notes: tuple[str, ...]
    """What a reader of the numbers must know, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def compare(
    first: Parts | str,
    second: Parts | str,
    manifest: Manifest | str,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the detections of two runs over the same images.

    Args:
        first: an output of `detect`, opened or its URI.
        second: another.
        manifest: the annotated manifest that both were made from.
        resamples: bootstrap resamples for the intervals.
        seed: of the resamples.

    Raises:
        InvalidConfiguration: no resamples.
        UnreadableDataset: the runs are of different images (the first that differs is named), the
            manifest has no annotations, or what `evaluate` raises.
    """
    if resamples < 1:
        raise InvalidConfiguration(f"{resamples} resamples, expected at least 1")
    manifest = open_manifest(manifest) if isinstance(manifest, str) else manifest
    runs = [shards.open_parts(run) if isinstance(run, str) else run for run in (first, second)]
    known = [schema.metadata_value(check_holds(r, "detections", "detect"), "classes") for r in runs]
    _check_same_images(*runs)
    classes = annotated_classes(manifest, min(manifest.rows, runs[0].rows))
    matches = [match_run(run, manifest, classes) for run in runs]
    images = matches[0].images
    notes = [
        f"{which}: {note}"
        for which, named in zip(("first", "second"), known, strict=True)
        if named is not None
        for note in compare_classes(named, classes)
    ]
    covered = coverage_notes(runs[0].rows, manifest.rows, runs[0].rows - images)
    score = _scores(matches, np.ones((1, images), np.int32))[..., 0]
    drawn = np.concatenate(
        [
            _scores(matches, weights)
            for weights in resampled(images, resamples, seed, _at_once(matches))
        ],
        axis=-1,
    )
    eleven, area = (_differences(score[:, rule], drawn[:, rule]) for rule in (0, 1))
    of_class = zip(classes, matches[0].per_class, eleven[1:], area[1:], strict=True)
    return Comparison(
        voc07_map50=eleven[0],
        voc_map50=area[0],
        images=images,
        resamples=resamples,
        seed=seed,
        confidence=CONFIDENCE,
        per_class=tuple(
            ClassComparison(label, len(found.objects), by_points, by_area)
            for label, found, by_points, by_area in of_class
        ),
        notes=(*notes, *covered),
    )


def _check_same_images(first: Parts, second: Parts) -> None:
    """Check that both runs are of the same images in the same order; cuts may differ.

    Raises:
        UnreadableDataset: they are not; the first image that differs is named.
    """
    places = storage.shown(first.uri), storage.shown(second.uri)
    for row, (one, other) in enumerate(zip_longest(_ids(first), _ids(second))):
        if one == other:
            continue
        if one is None or other is None:
            raise UnreadableDataset(
                f"the detections are of different images: row {row}, {one or other!r}, is in "
                f"{places[one is None]} alone; detect with the same --limit"
            )
        raise UnreadableDataset(
            f"the detections are of different images: row {row} is {one!r} in {places[0]} and "
            f"{other!r} in {places[1]}"
        )


def _ids(run: Parts) -> Iterator[str]:
    for table in run.tables(["image_id"]):
        yield from table.column("image_id").to_pylist()


def _at_once(matches: Sequence[Matches]) -> int:
    """Resamples that fit the memory side by side."""
    detections = [len(found.images) for run in matches for found in run.per_class]
    return max(1, min(64, WEIGHTS_AT_ONCE // max(matches[0].images, *detections)))


def _scores(matches: Sequence[Matches], weights: Weights) -> NDArray[np.float64]:
    """`(2 runs, 11-point and area, mean and each class, B)`."""
    per_class = np.array(
        [[weighted_average_precision(one, weights) for one in run.per_class] for run in matches]
    )
    per_rule = per_class.transpose(0, 2, 1, 3)
    defined = ~np.isnan(per_rule)
    counted = defined.sum(axis=2, keepdims=True)
    mean = np.where(defined, per_rule, 0.0).sum(axis=2, keepdims=True) / np.maximum(counted, 1)
    return np.concatenate([np.where(counted > 0, mean, np.nan), per_rule], axis=2)


def _differences(score: NDArray[np.float64], drawn: NDArray[np.float64]) -> list[Difference]:
    """Of the mean and each class, from scores `(2, K + 1)` and resampled ones `(2, K + 1, B)`."""
    tail = 100 * (1 - CONFIDENCE) / 2
    made = []
    for first, second, differences in zip(*score, drawn[1] - drawn[0], strict=True):
        defined = differences[~np.isnan(differences)]
        if np.isnan(first) or defined.size == 0:
            made.append(Difference(None, None, None, None, None))
            continue
        low, high = np.percentile(defined, [tail, 100 - tail])
        made.append(
            Difference(float(first), float(second), float(second - first), float(low), float(high))
        )
    return made
