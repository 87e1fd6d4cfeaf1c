"""The settings of selective search, as options and as a run records them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.option_ranges import check_fields


@dataclass(frozen=True)
class ProposalSettings:
    """How to compute proposals; equal settings give equal boxes on any worker."""

    strategy: str = "fast"
    """single, fast or quality (1, 8 or 80 hierarchies), or a custom COLOUR_SPACES:SIMILARITIES:KS such as
    HSV,Lab:CTSF,TSF:50,100, optionally followed by :sigma=0.8 and :min_size=20."""
    max_boxes: int | None = 2000
    """Maximum number of boxes per image, best first; None keeps all."""
    min_side: int = 20
    """Drop boxes with a side shorter than this, in pixels; 1 keeps all."""
    max_side: int | None = None
    """Shrink an image to this longer side, in pixels, before the search; the boxes are scaled back."""
    seed: int = 0
    """Seed of the ranking; combined with image_id, it gives each image its own seed."""
    backend: Literal["native", "opencv", "selectivesearch"] = "native"
    """Implementation of selective search; those other than native exist for comparison."""

    def __post_init__(self) -> None:
        check_fields(self, "max_boxes", "min_side", "max_side", at_least=1)

    def to_provenance(self) -> dict[str, Any]:
        """The settings as run.json and the parts' metadata store them."""
        from pipeline import proposals  # noqa: PLC0415  (importing numba takes a second)

        return proposals.describe_provenance(**asdict(self))
