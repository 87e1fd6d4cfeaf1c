"""When an image's further proposals are not scored; free of torch, since drivers and jobs use it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields


@dataclass(frozen=True)
class CascadeSettings:
    """A cascade (Viola and Jones, CVPR 2001) of two stages: a proposal's rank, then the head."""

    stop_after: int | None = None
    """Score an image's proposals in batches, best first, and stop after this number of batches in a row that
    bring no detection; for proposals in the learned order. Unset: score all."""
    stop_batch: int = 32
    """Number of proposals in such a batch."""
    stop_score: float | None = None
    """Lowest score of a detection that keeps an image's scoring going. Unset: --score-threshold."""

    def __post_init__(self) -> None:
        check_fields(self, "stop_after", "stop_batch", at_least=1)
        check_fields(self, "stop_score", at_least=0, at_most=1)
        is_changed = self.stop_batch != CascadeSettings.stop_batch or self.stop_score is not None
        if self.stop_after is None and is_changed:
            raise InvalidConfiguration("--stop-batch and --stop-score need --stop-after")

    def to_record(self) -> dict[str, Any]:
        """Return the settings as run.json stores them."""
        return asdict(self)
