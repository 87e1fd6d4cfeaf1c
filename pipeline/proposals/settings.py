"""How proposals are made: the settings of selective search that a run records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True)
class ProposalSettings:
    """How proposals are made; equal settings give equal boxes on any worker."""

    strategy: str = "fast"
    """single, fast or quality (1, 8, 80 hierarchies), or one's own: COLOUR_SPACES:SIMILARITIES:KS, as in
    HSV,Lab:CTSF,TSF:50,100, with :sigma=0.8 and :min_size=20 behind it if need be."""
    max_boxes: int | None = 2000
    """At most so many boxes per image, best first; None keeps all."""
    min_side: int = 20
    """Drop boxes with a side under so many pixels; 1 keeps all."""
    max_side: int | None = None
    """Shrink an image to this longer side, in pixels, before the search; its boxes are scaled back."""
    seed: int = 0
    """Seed of the ranking; each image's own seed comes from it and its image_id."""
    backend: Literal["native", "opencv", "selectivesearch"] = "native"
    """Whose selective search; the others are there to compare with."""

    def __post_init__(self) -> None:
        for name in ("max_boxes", "min_side", "max_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = name.replace("_", "-")
                raise InvalidConfiguration(f"--{option} is {value}, expected at least 1")

    def recorded(self) -> dict[str, Any]:
        """The settings as run.json and the parts' metadata hold them."""
        from pipeline import proposals  # noqa: PLC0415  (numba takes a second: only who needs it)

        return proposals.provenance(**asdict(self))
