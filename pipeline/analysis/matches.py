"""Which detections of a run are true, by class and with their images: what a resampling needs to know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis import flat
from pipeline.analysis.average_precision import IGNORED, TRUE, match
from pipeline.analysis.joined import check_finite, joined, labelled
from pipeline.manifests import Manifest
from pipeline.shards import Parts


@dataclass(frozen=True)
class ClassMatches:
    """One class; images are numbered over the annotated ones."""

    images: NDArray[np.int32]
    """`(D,)` the image of each detection, best scored first; ignored detections are left out."""
    hits: NDArray[np.bool_]
    """`(D,)` whether it is true."""
    objects: NDArray[np.int32]
    """`(G,)` the image of each object to find."""


@dataclass(frozen=True)
class Matches:
    """A run's detections, matched once with the annotated objects."""

    images: int
    """Annotated images; those without detections, and failed ones, count too."""
    per_class: tuple[ClassMatches, ...]


def match_run(
    detections: Parts, manifest: Manifest, classes: tuple[str, ...], threshold: float = 0.5
) -> Matches:
    """Stream a run's parts and keep nine bytes and an image's number per detection.

    Args:
        detections: an output of `detect`.
        manifest: the manifest it was made from.
        classes: of the manifest; detections of others are left out.
        threshold: the least IoU of a true detection.

    Raises:
        UnreadableDataset: the images are others, or a score or box is not finite.
    """
    found_in: list[NDArray[np.int32]] = []
    class_ids: list[NDArray[np.int32]] = []
    scores: list[NDArray[np.float32]] = []
    hits: list[NDArray[np.bool_]] = []
    object_in: list[NDArray[np.int32]] = []
    object_ids: list[NDArray[np.int32]] = []
    images = 0
    for step in joined(detections, manifest, ["detections"]):
        known = labelled(step)
        number = images + np.cumsum(known) - 1
        images += int(known.sum())
        found = flat.detections(step.results.column("detections"), classes)
        check_finite(found, step)
        found = found[(found.class_id >= 0) & known[found.image]]
        truth = flat.ground_truth(step.manifest.column("objects"), classes)
        outcome = match(truth, found, threshold)
        kept = outcome != IGNORED
        found_in.append(number[found.image[kept]].astype(np.int32))
        class_ids.append(found.class_id[kept].astype(np.int32))
        scores.append(found.scores[kept])
        hits.append(outcome[kept] == TRUE)
        counted = ~(truth.difficult | truth.crowd)
        object_in.append(number[truth.image[counted]].astype(np.int32))
        object_ids.append(truth.class_id[counted].astype(np.int32))
    ids, of_object = np.concatenate(class_ids), np.concatenate(object_ids)
    # As VocAveragePrecision: a stable sort, equal scores in the order of the manifest.
    order = np.lexsort((-np.concatenate(scores), ids))
    ends = np.cumsum(np.bincount(ids, minlength=len(classes)))[:-1]
    ranked = np.split(np.concatenate(found_in)[order], ends)
    true = np.split(np.concatenate(hits)[order], ends)
    where = np.concatenate(object_in)
    return Matches(
        images,
        tuple(
            ClassMatches(of_class, its_hits, where[of_object == k])
            for k, (of_class, its_hits) in enumerate(zip(ranked, true, strict=True))
        ),
    )
