"""Which boxes an export keeps: by label and score, and the classes that it numbers them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.score_thresholds import ScoreThresholds
from pipeline.errors import InvalidConfiguration, UnreadableDataset


@dataclass(frozen=True)
class BoxSelection:
    """The classes of an export in order, and which boxes it keeps."""

    classes: tuple[str, ...]
    """All classes; a box's class is its index here, whether or not `labels` leaves some out."""
    labels: tuple[str, ...] = ()
    """The classes whose boxes are kept; empty keeps all."""
    min_score: float = 0.0
    """Detections with a lower score are left out."""
    thresholds: ScoreThresholds | None = None
    """The lowest score that is kept, by class; the higher of it and `min_score` counts."""

    def __post_init__(self) -> None:
        unknown = [label for label in self.labels if label not in self.classes]
        if unknown:
            shown = ", ".join(map(repr, self.classes[:10])) + (
                f" and {len(self.classes) - 10} more" if len(self.classes) > 10 else ""
            )
            raise InvalidConfiguration(
                f"--labels {unknown[0]!r} is no class of this export; its classes are {shown or 'none'}"
            )

    def find_kept(
        self, class_ids: NDArray[np.int64], scores: NDArray[np.float32] | None
    ) -> NDArray[np.bool_]:
        """Return which boxes are kept, bool `(N,)`.

        Args:
            class_ids: `(N,)`; -1 for a label that is not among the classes.
            scores: `(N,)`, or None for annotated objects, which have none.

        Raises:
            UnreadableDataset: a box is of another class.
        """
        if (class_ids < 0).any():
            raise UnreadableDataset(
                "a detection has a label that is not among the classes that its output lists: "
                f"{', '.join(self.classes):.200}"
            )
        kept = np.ones(len(class_ids), np.bool_)
        if self.labels:
            kept &= np.array([name in self.labels for name in self.classes], np.bool_)[class_ids]
        if scores is not None:
            limits = np.array([self._find_limit(label) for label in self.classes], np.float32)
            kept &= scores >= limits[class_ids]
        return kept

    def _find_limit(self, label: str) -> float:
        threshold = self.thresholds and self.thresholds.get_threshold(label)
        return max(self.min_score, threshold or 0.0)


def join_classes(annotated: Sequence[str] | None, detected: Sequence[str]) -> tuple[str, ...]:
    """The manifest's classes in order, then those that only the detections have."""
    first = tuple(annotated or ())
    return first + tuple(name for name in detected if name not in set(first))
