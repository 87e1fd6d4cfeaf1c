"""Which order the boxes come in: the authors', or one that a model learned.

`authors` is section 4.3 of the paper: the level in the hierarchy times a random number. `learned` is the
model in the package; any other ranking is the URI of a model that jobs/rank.py trained.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pipeline import uris
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.ranking_model import (
    RankingModel,
    digest_model,
    load_packaged_model,
    parse_model,
    read_model,
)
from pipeline.proposals.strategy import LEARNED_BY_DEFAULT, Strategy

AUTHORS, LEARNED = "authors", "learned"
RANKING_VERSION = 1
"""Increase it with every change of features, trees or suppression that changes a learned order."""


def choose_ranking(ranking: str | None, strategy: str | Strategy, backend: str = "native") -> str:
    """Return the ranking that is used: the strategy's own if none is asked for.

    Raises:
        InvalidConfiguration: neither a name nor the URI of a .json file, or a learned one of another backend.
    """
    if ranking is None:
        return LEARNED if strategy in LEARNED_BY_DEFAULT else AUTHORS
    if ranking not in (AUTHORS, LEARNED) and not ranking.endswith(".json"):
        raise InvalidConfiguration(
            f"--ranking is {uris.redact_uri(ranking)!r}, expected authors, learned or a .json file of "
            "jobs/rank.py"
        )
    if ranking != AUTHORS and backend != "native":
        raise InvalidConfiguration(
            f"--ranking {uris.redact_uri(ranking)} needs the hierarchies of --backend native, and "
            f"{backend!r} returns only boxes"
        )
    return ranking


def load_ranking(ranking: str, digest: str | None = None) -> RankingModel | None:
    """Load the model of a ranking that `choose_ranking` returned; None for the authors' order.

    Args:
        ranking: `authors`, `learned` or a URI.
        digest: of the model that a run uses on all workers; None takes the file as it is.

    Raises:
        InvalidConfiguration: not a model, or not the one with that digest.
        StorageError: it cannot be read.
    """
    if ranking == AUTHORS:
        return None
    return _load(ranking, digest) if digest is not None else _read(ranking)[0]


def describe_ranking(ranking: str, digest: str | None = None) -> dict[str, Any]:
    """Describe a ranking as the provenance of proposals names it.

    The authors' order has no entry, so that outputs of releases that knew no other can be resumed.
    """
    if ranking == AUTHORS:
        return {}
    name = LEARNED if ranking == LEARNED else "trained"
    model = digest or digest_ranking(ranking)
    return {"ranking": {"name": name, "model": model, "version": RANKING_VERSION}}


def digest_ranking(ranking: str) -> str | None:
    """The digest of a ranking's model; None for the authors' order."""
    return None if ranking == AUTHORS else _read(ranking)[1]


@lru_cache(maxsize=4)
def _load(ranking: str, digest: str) -> RankingModel:
    model, actual = _read(ranking)
    if actual != digest:
        raise InvalidConfiguration(
            f"the ranking model {uris.redact_uri(ranking)} is not the one that the run began with: "
            f"its digest is {actual[:12]}, expected {digest[:12]}"
        )
    return model


def _read(ranking: str) -> tuple[RankingModel, str]:
    if ranking == LEARNED:
        return load_packaged_model()
    content = read_model(ranking)
    return parse_model(content, uris.redact_uri(ranking)), digest_model(content)
