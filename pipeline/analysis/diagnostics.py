"""All diagnostics of a run, in one pass over its matches: counts that can be merged, then results and tables.

In one process, `compute_diagnostics` reads parts one after the other. On a cluster, each task makes
`DiagnosticCounts` of some parts, and these are merged in any order: the results are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.analysis.annotation_errors import AnnotationErrorCounts, AnnotationErrors
from pipeline.analysis.calibration import (
    Calibration,
    CalibrationCounts,
    build_calibration_table,
)
from pipeline.analysis.confusion import ConfusionCounts, ConfusionMatrix, build_confusion_table
from pipeline.analysis.detection_arrays import DetectionArrays
from pipeline.analysis.distributions import (
    DistributionCounts,
    Distributions,
    build_distribution_table,
)
from pipeline.analysis.image_facts import ImageFacts
from pipeline.analysis.intervals import PrecisionIntervals, bootstrap_precision
from pipeline.analysis.matching import Matches
from pipeline.analysis.misses import MissAnalysis, MissCounts, build_miss_table
from pipeline.analysis.operating_points import (
    OperatingPointCounts,
    OperatingPoints,
    build_operating_point_table,
)
from pipeline.analysis.resampling import ImageSample, Resampler
from pipeline.analysis.score_levels import lower_to_level
from pipeline.analysis.score_thresholds import ScoreThresholds, choose_thresholds
from pipeline.analysis.side_table import SideTable
from pipeline.analysis.slices import (
    SliceCounts,
    Slices,
    build_slice_table,
    find_slices,
    list_attributes,
)
from pipeline.analysis.tide import TideCounts, TideErrors, build_tide_table
from pipeline.analysis.tide_intervals import estimate_gains

DEFAULT_SCORE = 0.5
"""The score that counts if no score is best, because nothing is true."""


@dataclass(frozen=True)
class DiagnosticOptions:
    """How diagnostics are computed."""

    min_score: float | None = None
    """The lowest score that counts in the confusion matrix, misses and slices; None: the best for F1."""
    confusion_iou: float = 0.5
    """The lowest IoU of a detection with its object in the confusion matrix."""
    resamples: int = 1000
    """Bootstrap resamples of the images; 0 computes no intervals."""
    seed: int = 0
    """Of the resamples."""
    sampled_share: float = 1.0
    """The share of the images that the bootstrap's sample may take, from `resampling.limit_share`."""


@dataclass(frozen=True)
class Diagnostics:
    """The results; without annotations, only the distributions."""

    min_score: float | None
    """The lowest score that counts in the confusion matrix, misses and slices."""
    distributions: Distributions | None
    """None if no detections were read, only matches."""
    operating_points: OperatingPoints | None = None
    thresholds: ScoreThresholds | None = None
    tide: TideErrors | None = None
    confusion: ConfusionMatrix | None = None
    calibration: Calibration | None = None
    misses: MissAnalysis | None = None
    slices: Slices | None = None
    annotation_errors: AnnotationErrors | None = None
    precision: PrecisionIntervals | None = None
    """Average precision with intervals; None without resamples."""
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    """The results as tidy tables, by name."""
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Return the sections of metrics.json as plain JSON values; None for what could not be computed."""
        names = (
            "operating_points",
            "tide",
            "confusion",
            "calibration",
            "misses",
            "slices",
            "annotation_errors",
            "distributions",
        )
        sections = {name: getattr(self, name) for name in names}
        precision = self.precision
        return {
            **{name: None if part is None else asdict(part) for name, part in sections.items()},
            "intervals": None if precision is None else precision.list_intervals(),
            "class_intervals": None
            if precision is None
            else {row.label: asdict(row) for row in precision.per_class},
        }


class DiagnosticCounts:
    """What all diagnostics count; accepts whole images in any order and grouping.

    Args:
        classes: the manifest's classes; matches of other labels are left out.
        options: how to compute.
        side: a table whose columns divide the images into slices.
    """

    def __init__(
        self,
        classes: Sequence[str],
        options: DiagnosticOptions = DiagnosticOptions(),
        side: SideTable | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.options = options
        self._side = side
        self._operating_points = OperatingPointCounts(classes)
        self._tide = TideCounts(classes)
        score = None if options.min_score is None else lower_to_level(options.min_score)
        self._confusion = ConfusionCounts(classes, options.confusion_iou, score)
        self._calibration = CalibrationCounts(classes)
        self._misses = MissCounts(classes)
        self._slices = SliceCounts(classes, list_attributes(side))
        self._annotation_errors = AnnotationErrorCounts(classes)
        self._distributions: DistributionCounts | None = None
        self._sample = ImageSample(options.seed, share=options.sampled_share)
        self._annotated_rows = 0
        self._images_in_side = 0
        self._images = 0

    def update(self, matches: Matches, facts: ImageFacts) -> None:
        """Add the matches of consecutive images.

        Args:
            matches: in the order of the manifest; class ids count `classes`, and labels beyond them.
            facts: of the images, also of those without matches.
        """
        self._count_images(facts)
        is_scored = matches.is_annotated & (matches.class_id < len(self.classes))
        if not is_scored.all():
            matches = matches[is_scored]
        if not len(matches):
            return
        self._annotated_rows += len(matches)
        slices = find_slices(matches, facts, self._side)
        for counts in self._list_plain():
            counts.update(matches)
        self._slices.update(matches, slices)
        self._annotation_errors.update(matches, facts)
        if self.options.resamples:
            self._sample.update(matches, slices)

    def _count_images(self, facts: ImageFacts) -> None:
        self._images += len(facts)
        if self._side is not None:
            self._images_in_side += self._side.count_images(facts.image_ids)

    def update_distributions(
        self, results: pa.Table, detections: DetectionArrays | None = None
    ) -> None:
        """Add a part of detections; the arguments are those of `DistributionCounts.update`."""
        if self._distributions is None:
            self._distributions = DistributionCounts(self.classes)
        self._distributions.update(results, detections)

    def merge(self, other: DiagnosticCounts) -> None:
        """Add the counts of other images."""
        for own, others in zip(self._list_plain(), other._list_plain(), strict=True):
            own.merge(others)
        self._slices.merge(other._slices)
        self._annotation_errors.merge(other._annotation_errors)
        self._sample.merge(other._sample)
        self._annotated_rows += other._annotated_rows
        self._images += other._images
        self._images_in_side += other._images_in_side
        if self._distributions is None:
            self._distributions = other._distributions
        elif other._distributions is not None:
            self._distributions.merge(other._distributions)

    def _list_plain(self) -> list[Any]:
        """The counts that need nothing but matches."""
        return [
            self._operating_points,
            self._tide,
            self._confusion,
            self._calibration,
            self._misses,
        ]

    def compute(self, scores: Mapping[str, float | None] | None = None) -> Diagnostics:
        """Compute all results.

        Args:
            scores: means of average precision over all images by name, on which intervals are centred.
        """
        distributions = None if self._distributions is None else self._distributions.compute()
        tables = {}
        if distributions is not None:
            tables["distributions"] = build_distribution_table(distributions)
        if not self._annotated_rows:
            return Diagnostics(None, distributions, tables=tables)
        resamples = self.options.resamples
        resampler = Resampler(self._sample, resamples) if resamples else None
        points = self._operating_points.compute(resampler)
        score = self._choose_score(points)
        confusion = self._confusion.compute(score, resampler)
        tide, calibration = self._tide.compute(), self._calibration.compute(resampler)
        if resampler is not None:
            tide = replace(tide, intervals=estimate_gains(resampler, tide, len(self.classes)))
        misses = self._misses.compute(score, resampler)
        slices = self._slices.compute(score, resampler)
        tables |= {
            "operating_points": build_operating_point_table(points),
            "tide": build_tide_table(tide),
            "confusion": build_confusion_table(confusion),
            "calibration": build_calibration_table(calibration),
            "misses": build_miss_table(misses),
            "slices": build_slice_table(slices),
            "annotation_errors": self._annotation_errors.build_table(),
            "annotation_errors_by_image": self._annotation_errors.build_image_table(),
        }
        return Diagnostics(
            min_score=score,
            distributions=distributions,
            operating_points=points,
            thresholds=choose_thresholds(points),
            tide=tide,
            confusion=confusion,
            calibration=calibration,
            misses=misses,
            slices=slices,
            annotation_errors=self._annotation_errors.compute(),
            precision=None
            if resampler is None
            else bootstrap_precision(resampler, self.classes, scores),
            tables=tables,
            notes=self._write_notes(misses, resampler),
        )

    def _choose_score(self, points: OperatingPoints) -> float:
        if self.options.min_score is not None:
            return lower_to_level(self.options.min_score)
        return DEFAULT_SCORE if points.best_score is None else points.best_score

    def _write_notes(self, misses: MissAnalysis, resampler: Resampler | None) -> tuple[str, ...]:
        notes = [] if resampler is None else list(resampler.notes)
        if misses.perfect_head is None:
            notes.append(
                "without --proposals it is unknown which missed objects the proposals missed"
            )
        if self._side is not None and self._images_in_side < self._images:
            notes.append(
                f"the side table has {self._images_in_side} of the {self._images} images; the others are "
                "in none of its slices"
            )
        return tuple(notes)


def compute_diagnostics(
    parts: Iterable[tuple[Matches, ImageFacts, pa.Table | None]],
    classes: Sequence[str],
    options: DiagnosticOptions = DiagnosticOptions(),
    side: SideTable | None = None,
    scores: Mapping[str, float | None] | None = None,
) -> Diagnostics:
    """Compute all diagnostics in this process, one part at a time.

    Args:
        parts: of consecutive images each, the matches, the facts, and the part of detections or None.
        classes: the manifest's classes.
        options: how to compute.
        side: a table whose columns divide the images into slices.
        scores: means of average precision over all images by name, on which intervals are centred.
    """
    counts = DiagnosticCounts(classes, options, side)
    for matches, facts, results in parts:
        counts.update(matches, facts)
        if results is not None:
            counts.update_distributions(results)
    return counts.compute(scores)
