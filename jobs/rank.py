"""Train a ranking of selective-search proposals on annotated images.

python jobs/rank.py --manifest train.parquet --output ranking.json

python jobs/propose.py --manifest images.parquet --strategy wide --ranking ranking.json --output out/proposals

The model scores a box from its place in the hierarchies, boundaries, colours and shape; proposals then
come in the order of their scores. Training needs the extra `rank` (LightGBM); using a model does not. It
runs on the cores of this machine, without Ray.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import shlex
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.entry import JobOptions, print_lines, run
from pipeline import uris
from pipeline.engine.propose.ranking_run import RankingRunSettings, train_ranking
from pipeline.option_ranges import check_fields
from pipeline.proposals.ranking_training import RankingRecipe


@dataclass(frozen=True, kw_only=True)
class Rank(JobOptions):
    """Options of the rank job."""

    manifest: str
    """Manifest of annotated images: a Parquet file or a folder of them; any fsspec URI."""
    output: str
    """The model to write (.json); a local path or any fsspec URI."""
    strategies: tuple[str, ...] = ("wide",)
    """Strategies whose boxes the model learns from; each image gives boxes of all of them."""
    limit: int = 2000
    """Most images; of more, as many are sampled."""
    min_side: int = 20
    """Leave out boxes with a side shorter than this, in pixels."""
    recipe: Annotated[RankingRecipe, tyro.conf.OmitArgPrefixes] = field(
        default_factory=RankingRecipe
    )

    def __post_init__(self) -> None:
        check_fields(self, "limit", "min_side", at_least=1)


def main(options: Rank) -> None:
    """Train a ranking and print how to use it."""
    settings = RankingRunSettings(
        options.strategies, options.limit, options.min_side, options.recipe
    )
    trained = train_ranking(options.manifest, options.output, settings)
    failed = f", {trained.images_failed} cannot be read" if trained.images_failed else ""
    uri = uris.redact_uri(trained.uri)
    print_lines(
        f"{trained.images} images{failed}, {trained.boxes} boxes: {uri} ({trained.nbytes / 1000:.0f} kB, "
        f"digest {trained.digest[:12]})",
        f"next: python jobs/propose.py --manifest MANIFEST --strategy {options.strategies[0]} "
        f"--ranking {shlex.quote(uri)} --output PROPOSALS",
    )


if __name__ == "__main__":
    run(Rank, main, __doc__)
