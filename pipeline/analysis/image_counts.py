"""How many images an analysis covers, and what is known of those without rows: unlabelled and failed ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.analysis.image_coverage import list_failure_reasons
from pipeline.analysis.manifest_join import JoinedBatch, find_labelled


@dataclass(frozen=True)
class ImageCounts:
    """Sums over some images of a detection run."""

    images: int = 0
    unlabelled: int = 0
    """Images without annotations."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failed images by `stage: error_type`."""

    @classmethod
    def from_json(cls, value: Any) -> ImageCounts:
        """Read what `to_json` wrote."""
        return cls(value["images"], value["unlabelled"], Counter(value["failed"]))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        failed = dict(sorted(self.failed.items()))
        return {"images": self.images, "unlabelled": self.unlabelled, "failed": failed}


def count_images(batch: JoinedBatch) -> ImageCounts:
    """Count the images of a batch, whose results have status, stage and error type."""
    return ImageCounts(
        len(batch.results),
        int((~find_labelled(batch)).sum()),
        Counter(list_failure_reasons(batch.results)),
    )


def add_image_counts(parts: Iterable[ImageCounts]) -> ImageCounts:
    """Add the counts of several parts."""
    images = unlabelled = 0
    failed: Counter[str] = Counter()
    for part in parts:
        images += part.images
        unlabelled += part.unlabelled
        failed.update(part.failed)
    return ImageCounts(images, unlabelled, failed)
