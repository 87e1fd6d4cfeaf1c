"""What decides the galleries of a report.

A split divides rows of the matches table into categories, such as detections into true and false ones. Each
category is a gallery, over all classes and for each class. The report's lowest score separates detections
that count from those that do not; splits that know no score, as TIDE's errors, choose confident ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.slices import Attribute
from pipeline.report.gallery import ITEMS_PER_PAGE
from pipeline.report.match_rows import MatchRows

Categories = NDArray[np.int64]
"""`(N,)` the category of each row, or -1."""


@dataclass(frozen=True)
class GalleryPlan:
    """What decides the galleries of a report."""

    classes: tuple[str, ...]
    """The manifest's, and after them labels that only detections have."""
    min_score: float
    """The lowest score of the detections that count in the report."""
    seed: int = 0
    failure_reasons: tuple[str, ...] = ()
    """`stage: error_type` of the failed images."""
    is_annotated: bool = True
    """Whether any image has annotations; if not, only galleries of detections and images exist."""
    has_proposals: bool = False
    """Whether the matches say which objects the proposals cover."""
    attributes: tuple[Attribute, ...] = ()
    """What slices are made by."""
    confusion_iou: float = 0.5
    """The lowest IoU of the confusion matrix."""


@dataclass(frozen=True)
class Category:
    """What the rows of one gallery have in common."""

    key: str
    title: str
    unit: str
    description: str = ""
    weight: int = 1
    """How many images the gallery takes in each turn when the report's images are shared out."""


@dataclass(frozen=True)
class Split:
    """A division of rows into categories; a row belongs to one at most."""

    name: str
    categories: Sequence[Category]
    assign: Callable[[MatchRows, GalleryPlan], Categories]
    is_confident_first: bool = False
    """Whether detections below the report's lowest score are shown only if there are too few above it."""
    is_by_class: bool = True
    """Whether each class has a gallery of each category too."""
    capacity: int = ITEMS_PER_PAGE
    """Rows that a gallery over all classes keeps."""
