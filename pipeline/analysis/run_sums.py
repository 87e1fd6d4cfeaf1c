"""One run of a comparison, streamed: a sample of its matches for the bootstrap, and sums over all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.analysis.confusion import ConfusionCounts
from pipeline.analysis.image_coverage import list_failure_reasons
from pipeline.analysis.manifest_join import find_labelled, join_manifest
from pipeline.analysis.match_table import match_batch
from pipeline.analysis.operating_points import OperatingPointCounts
from pipeline.analysis.resampling import ImageSample
from pipeline.manifests import Manifest
from pipeline.shards import Parts

DEFAULT_SCORE = 0.5
"""The score that counts if nothing is true."""


@dataclass(frozen=True)
class RunSums:
    """What a comparison needs of one run."""

    sample: ImageSample
    confusion: ConfusionCounts
    images: int
    """Annotated images, including failed ones and those without detections."""
    score: float
    """The score that is best for F1: detections of lower ones are not counted as errors."""
    failed: Counter[str]
    """Failed images by `stage: error_type`."""


def sum_run(run: Parts, manifest: Manifest, classes: tuple[str, ...], seed: int) -> RunSums:
    """Match a run's detections with the objects, one batch of images at a time.

    Args:
        run: an output of `detect`.
        manifest: the manifest from which it was made.
        classes: the manifest's; detections of other classes are left out.
        seed: of the sample.

    Raises:
        UnreadableDataset: the images differ, or a score or box is not finite.
    """
    sample, points = ImageSample(seed), OperatingPointCounts(classes)
    confusion = ConfusionCounts(classes)
    images, failed = 0, Counter[str]()
    for batch in join_manifest(run, manifest, ["status", "stage", "error_type", "detections"]):
        matches = match_batch(batch, classes)
        sample.update(matches)
        points.update(matches)
        confusion.update(matches)
        images += int(find_labelled(batch).sum())
        failed.update(list_failure_reasons(batch.results))
    score = points.find_best_score()
    return RunSums(sample, confusion, images, DEFAULT_SCORE if score is None else score, failed)
