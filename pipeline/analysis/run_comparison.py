"""What a comparison of two runs says; `comparison.compare` computes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.analysis.changed_images import GroupKind, ImageChange
from pipeline.analysis.paired_figures import ScoreDifference


@dataclass(frozen=True)
class ClassComparison:
    """The comparison of one class."""

    label: str
    objects: int
    ap11: ScoreDifference
    ap_area: ScoreDifference
    coco_ap: ScoreDifference
    coco_ap50: ScoreDifference


@dataclass(frozen=True)
class NamedDifference:
    """The difference of something that has a name: recall of a size, or the number of errors of a type."""

    name: str
    difference: ScoreDifference


@dataclass(frozen=True)
class CellDifference:
    """A cell of the confusion matrix that differs; a label of None is the background."""

    object: str | None
    detection: str | None
    first: int
    second: int


@dataclass(frozen=True)
class ChangedImages:
    """The images on which the number of some errors differs."""

    kind: GroupKind
    """What they are errors of: a class, a type of error, a size of missed objects, a cell of `confusion`."""
    name: str
    """The class, the type, the size, or the labels of the cell."""
    position: int
    """In `per_class`, `errors`, `recall_by_size` or `confusion`."""
    images: int
    """How many images differ."""
    largest: tuple[ImageChange, ...]
    """Those with the largest changes."""


@dataclass(frozen=True)
class RunComparison:
    """How the second run's detections differ from the first's."""

    voc07_map50: ScoreDifference
    """VOC2007's 11-point mean AP; means are over the classes that have objects."""
    voc_map50: ScoreDifference
    """VOC2010's area mean AP."""
    coco_ap: ScoreDifference
    coco_ap50: ScoreDifference
    coco_ap75: ScoreDifference
    images: int
    """Annotated images; a resample draws as many, with replacement."""
    resamples: int
    seed: int
    confidence: float
    scores: tuple[float, float]
    """The lowest score that counts below, of each run: the best for its F1."""
    per_class: tuple[ClassComparison, ...]
    recall_by_size: tuple[NamedDifference, ...]
    """Recall at IoU 0.5 and the run's score, of small, medium and large objects."""
    errors: tuple[NamedDifference, ...]
    """The number of errors: all false detections, those of each of TIDE's types, missed objects."""
    confusion: tuple[CellDifference, ...]
    better: tuple[ImageChange, ...]
    """Images with fewer errors in the second run, the most changed first."""
    worse: tuple[ImageChange, ...]
    """Images with more errors in the second run."""
    images_better: int
    images_worse: int
    changed: tuple[ChangedImages, ...]
    """Of each class, type of error, size and large cell of the confusion matrix, the images that differ."""
    settings: tuple[str, ...]
    """What differs in the runs' settings, one sentence each."""
    notes: tuple[str, ...]
    """What a reader of the numbers must know, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
