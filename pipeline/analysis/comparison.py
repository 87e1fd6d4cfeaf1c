"""Compares two runs over the same images: `compare(first, second, manifest) -> RunComparison`.

The interval comes from a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13): images are drawn with replacement, both runs are scored on the same draw, and the
percentiles of the difference are reported. It shows how much another sample of images could change the
difference; it does not cover the variation between trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema, shards, uris
from pipeline.analysis.bootstrap import Weights, draw_resamples, score_resamples
from pipeline.analysis.class_names import compare_classes
from pipeline.analysis.image_coverage import describe_coverage
from pipeline.analysis.manifest_join import require_column
from pipeline.analysis.run_matches import RunMatches, match_run
from pipeline.annotated_classes import list_annotated_classes
from pipeline.errors import InvalidConfiguration, UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.shards import Parts

CONFIDENCE = 0.95
MAX_BATCH_WEIGHTS = 2**26
"""Weights of detections in one batch of resamples: a quarter of a gigabyte."""


@dataclass(frozen=True)
class ScoreDifference:
    """One score of both runs; None if no object counts."""

    first: float | None
    second: float | None
    difference: float | None
    """The second minus the first."""
    low: float | None
    """The 2.5th percentile of the difference over the resamples."""
    high: float | None
    """The 97.5th percentile."""


@dataclass(frozen=True)
class ClassComparison:
    """The comparison of one class."""

    label: str
    objects: int
    ap11: ScoreDifference
    ap_area: ScoreDifference


@dataclass(frozen=True)
class RunComparison:
    """How the second run's detections differ from the first's, in average precision at IoU 0.5."""

    voc07_map50: ScoreDifference
    """VOC2007's 11-point mean AP; means are over the classes that have objects."""
    voc_map50: ScoreDifference
    """VOC2010's area mean AP."""
    images: int
    """Annotated images; a resample draws as many, with replacement."""
    resamples: int
    seed: int
    confidence: float
    per_class: tuple[ClassComparison, ...]
    notes: tuple[str, ...]
    """What a reader of the numbers must know, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def compare(
    first: Parts | str,
    second: Parts | str,
    manifest: Manifest | str,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RunComparison:
    """Compare the detections of two runs over the same images.

    Args:
        first: an output of `detect`, opened or its URI.
        second: another output of `detect`, opened or its URI.
        manifest: the annotated manifest from which both were made.
        resamples: number of bootstrap resamples for the intervals.
        seed: seed of the resamples.

    Raises:
        InvalidConfiguration: fewer than 1 resample.
        UnreadableDataset: the runs are of different images (names the first that differs), the
            manifest has no annotations, or as `evaluate` raises.
    """
    if resamples < 1:
        raise InvalidConfiguration(f"{resamples} resamples, expected at least 1")
    manifest = open_manifest(manifest) if isinstance(manifest, str) else manifest
    runs = [shards.open_parts(run) if isinstance(run, str) else run for run in (first, second)]
    schemas = [require_column(run, "detections", "detect") for run in runs]
    _check_same_images(*runs)
    classes = list_annotated_classes(manifest, min(manifest.rows, runs[0].rows))
    matches = [match_run(run, manifest, classes) for run in runs]
    images = matches[0].images
    notes = (
        *_compare_run_classes(schemas, classes),
        *describe_coverage(runs[0].rows, manifest.rows, runs[0].rows - images),
    )
    eleven_point, area = _bootstrap_differences(matches, resamples, seed)
    return RunComparison(
        voc07_map50=eleven_point[0],
        voc_map50=area[0],
        images=images,
        resamples=resamples,
        seed=seed,
        confidence=CONFIDENCE,
        per_class=tuple(
            ClassComparison(label, len(class_matches.objects), by_points, by_area)
            for label, class_matches, by_points, by_area in zip(
                classes, matches[0].per_class, eleven_point[1:], area[1:], strict=True
            )
        ),
        notes=notes,
    )


def _compare_run_classes(schemas: Sequence[pa.Schema], classes: Sequence[str]) -> list[str]:
    """Write the notes of `compare_classes` for both runs; a run may have recorded no classes."""
    detected = [schema.read_metadata(run_schema, "classes") for run_schema in schemas]
    return [
        f"{which}: {note}"
        for which, run_classes in zip(("first", "second"), detected, strict=True)
        if run_classes is not None
        for note in compare_classes(run_classes, classes)
    ]


def _check_same_images(first: Parts, second: Parts) -> None:
    """Check that both runs are of the same images in the same order; their shards may differ.

    Raises:
        UnreadableDataset: the images differ; names the first one.
    """
    outputs = uris.redact_uri(first.uri), uris.redact_uri(second.uri)
    image_ids = zip_longest(_read_image_ids(first), _read_image_ids(second))
    for row, (first_id, second_id) in enumerate(image_ids):
        if first_id == second_id:
            continue
        if first_id is None or second_id is None:
            raise UnreadableDataset(
                f"the detections are of different images: row {row}, {first_id or second_id!r}, "
                f"is in {outputs[first_id is None]} alone; detect with the same --limit"
            )
        raise UnreadableDataset(
            f"the detections are of different images: row {row} is {first_id!r} in {outputs[0]} and "
            f"{second_id!r} in {outputs[1]}"
        )


def _read_image_ids(run: Parts) -> Iterator[str]:
    for table in run.read_tables(["image_id"]):
        yield from table.column("image_id").to_pylist()


def _bootstrap_differences(
    matches: Sequence[RunMatches], resamples: int, seed: int
) -> tuple[list[ScoreDifference], list[ScoreDifference]]:
    """Return the differences by 11-point and by area AP, each of the mean and of every class."""
    images = matches[0].images
    scores = _score_runs(matches, np.ones((1, images), np.int32))[..., 0]
    resampled = np.concatenate(
        [
            _score_runs(matches, weights)
            for weights in draw_resamples(images, resamples, seed, _choose_batch_size(matches))
        ],
        axis=-1,
    )
    eleven_point, area = (
        _summarize_differences(scores[:, rule], resampled[:, rule]) for rule in (0, 1)
    )
    return eleven_point, area


def _choose_batch_size(matches: Sequence[RunMatches]) -> int:
    """Return the number of resamples that fit into memory together."""
    detections = [len(by_class.images) for run in matches for by_class in run.per_class]
    return max(1, min(64, MAX_BATCH_WEIGHTS // max(matches[0].images, *detections)))


def _score_runs(matches: Sequence[RunMatches], weights: Weights) -> NDArray[np.float64]:
    """Return scores `(2 runs, 11-point and area, mean and each class, B)`."""
    per_class = np.array(
        [[score_resamples(by_class, weights) for by_class in run.per_class] for run in matches]
    )
    per_rule = per_class.transpose(0, 2, 1, 3)
    is_defined = ~np.isnan(per_rule)
    classes = is_defined.sum(axis=2, keepdims=True)
    mean = np.where(is_defined, per_rule, 0.0).sum(axis=2, keepdims=True) / np.maximum(classes, 1)
    return np.concatenate([np.where(classes > 0, mean, np.nan), per_rule], axis=2)


def _summarize_differences(
    scores: NDArray[np.float64], resampled: NDArray[np.float64]
) -> list[ScoreDifference]:
    """Summarize the mean and each class from scores `(2, K + 1)` and resampled ones `(2, K + 1, B)`."""
    tail = 100 * (1 - CONFIDENCE) / 2
    summaries = []
    for first, second, differences in zip(*scores, resampled[1] - resampled[0], strict=True):
        defined = differences[~np.isnan(differences)]
        if np.isnan(first) or defined.size == 0:
            summaries.append(ScoreDifference(None, None, None, None, None))
            continue
        low, high = np.percentile(defined, [tail, 100 - tail])
        summaries.append(
            ScoreDifference(
                float(first), float(second), float(second - first), float(low), float(high)
            )
        )
    return summaries
