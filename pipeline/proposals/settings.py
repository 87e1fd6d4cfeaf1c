"""The settings of selective search, as options and as a run records them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pipeline import uris
from pipeline.option_ranges import check_fields

if TYPE_CHECKING:
    from pipeline.proposals.ranking_model import RankingModel


@dataclass(frozen=True)
class ProposalSettings:
    """How to compute proposals; equal settings give equal boxes on any worker."""

    strategy: str = "fast"
    """single, fast or quality (1, 8 or 80 hierarchies), lean, balanced or wide (8, 12 or 16, for the learned
    ranking), or a custom COLOUR_SPACES:SIMILARITIES:KS such as HSV,Lab:CTSF,TSF:50,100, optionally followed
    by :sigma=0.8 and :min_size=20."""
    ranking: str | None = None
    """Order of the boxes: authors (level times a random number), learned (the packaged model), or the URI of
    a model of jobs/rank.py (.json). None: learned for lean, balanced and wide, authors for the
    others."""
    max_boxes: int | None = 2000
    """Maximum number of boxes per image, best first; None keeps all."""
    min_side: int = 20
    """Drop boxes with a side shorter than this, in pixels; 1 keeps all."""
    max_side: int | None = None
    """Shrink an image to this longer side, in pixels, before the search; the boxes are scaled back."""
    seed: int = 0
    """Seed of the authors' ranking; combined with image_id, it gives each image its own seed."""
    backend: Literal["native", "opencv", "selectivesearch"] = "native"
    """Implementation of selective search; those other than native exist for comparison."""
    ranking_digest: Annotated[str | None, tyro.conf.Suppress] = None
    """Digest of the ranking's model: a run sets it, so that all workers use the same model."""

    def __post_init__(self) -> None:
        check_fields(self, "max_boxes", "min_side", "max_side", at_least=1)

    def pin_ranking(self) -> ProposalSettings:
        """The settings with the digest of the ranking's model, as workers get them.

        Raises:
            InvalidConfiguration: no such ranking, or the file is no model.
            StorageError: it cannot be read.
        """
        from pipeline.proposals import ranking_choice  # noqa: PLC0415

        chosen = ranking_choice.choose_ranking(self.ranking, self.strategy, self.backend)
        if "://" not in chosen and chosen.endswith(".json"):  # workers may run in another folder
            chosen = uris.make_absolute(chosen)
        return replace(self, ranking=chosen, ranking_digest=ranking_choice.digest_ranking(chosen))

    @property
    def ranking_uri(self) -> str | None:
        """Where the ranking's model is, if it is a file of the user's."""
        return None if self.ranking in (None, "authors", "learned") else self.ranking

    def load_ranking(self) -> str | RankingModel:
        """The model of the ranking, or "authors"; a pinned one is read once per process.

        Raises:
            InvalidConfiguration: no such ranking, the file is no model, or not the pinned one.
            StorageError: it cannot be read.
        """
        from pipeline.proposals import ranking_choice  # noqa: PLC0415

        chosen = ranking_choice.choose_ranking(self.ranking, self.strategy, self.backend)
        return ranking_choice.load_ranking(chosen, self.ranking_digest) or chosen

    def to_provenance(self) -> dict[str, Any]:
        """The settings as run.json and the parts' metadata store them."""
        from pipeline import proposals  # noqa: PLC0415  (importing numba takes a second)

        return proposals.describe_provenance(**asdict(self))
