"""Which hierarchies a selective search builds: colour spaces x segmentation scales x similarities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidConfiguration

COLOUR_SPACES = ("RGB", "I", "Lab", "rgI", "HSV", "rgb", "C", "H")
"""The paper's eight (table 1): `rgb` is normalised RGB, `rgI` its r and g with intensity, `C` the colour
invariant of Geusebroek et al. (2001), `H` the hue of HSV."""

LARGEST_K = 1_000_000_000
LARGEST_MIN_SIZE = 1_000_000_000
"""Beyond any image's pixels; the segmentation counts in 64-bit integers."""

MEASURES = "CTSF"
"""Colour, texture, size and fill (section 3.2, equations 1-4)."""


def _check_choices(kind: str, names: tuple[str, ...], choices: tuple[str, ...]) -> None:
    if not names:
        raise InvalidConfiguration(f"a strategy needs at least one {kind}")
    for name in names:
        if name not in choices:
            raise InvalidConfiguration(f"unknown {kind} {name!r}; choose from {', '.join(choices)}")


@dataclass(frozen=True)
class Strategy:
    """Every combination of a colour space, a scale k and a similarity makes one hierarchy."""

    colour_spaces: tuple[str, ...]
    """Among `COLOUR_SPACES`."""
    similarities: tuple[str, ...]
    """Subsets of `MEASURES`, such as "CTSF" or "S"; a similarity is the mean of its measures."""
    ks: tuple[float, ...]
    """Scales of the initial segmentation (Felzenszwalb and Huttenlocher), for values 0-255."""
    sigma: float = 0.8
    """Standard deviation in pixels of the Gaussian that smooths before segmentation; 0 for none."""
    min_size: int | None = None
    """Smallest initial segment, in pixels; None takes each k itself, as the authors do."""

    def __post_init__(self) -> None:
        _check_choices("colour space", self.colour_spaces, COLOUR_SPACES)
        if not self.similarities or not self.ks:
            raise InvalidConfiguration("a strategy needs at least one similarity and one k")
        for name in self.similarities:
            if not name or len(set(name)) != len(name) or not set(name) <= set(MEASURES):
                raise InvalidConfiguration(
                    f"similarity {name!r} is not a subset of {MEASURES} (such as CTSF, TSF, F)"
                )
        if not all(0 < k <= LARGEST_K for k in self.ks):
            raise InvalidConfiguration(
                f"every k must be positive and at most {LARGEST_K:,}, got {self.ks}"
            )
        if not 0 <= self.sigma <= 16:
            raise InvalidConfiguration(f"sigma must be within 0 and 16 pixels, got {self.sigma}")
        if self.min_size is not None and not 1 <= self.min_size <= LARGEST_MIN_SIZE:
            raise InvalidConfiguration(
                f"min_size must be within 1 and {LARGEST_MIN_SIZE:,} pixels, got {self.min_size}"
            )

    def get_min_size(self, k: float) -> int:
        """Return the smallest segment, in pixels, of the segmentation at scale `k`."""
        return round(k) if self.min_size is None else self.min_size

    def to_json(self) -> dict[str, Any]:
        """Return all parameters as JSON values."""
        return {
            "colour_spaces": list(self.colour_spaces),
            "similarities": list(self.similarities),
            "ks": list(self.ks),
            "sigma": self.sigma,
            "min_size": self.min_size,
        }


STRATEGIES: Mapping[str, Strategy] = {
    "single": Strategy(("HSV",), ("CTSF",), (100.0,)),
    "fast": Strategy(("HSV", "Lab"), ("CTSF", "TSF"), (50.0, 100.0)),
    "quality": Strategy(
        ("HSV", "Lab", "rgI", "H", "I"), ("CTSF", "TSF", "F", "S"), (50.0, 100.0, 150.0, 300.0)
    ),
    "lean": Strategy(("Lab",), ("CTSF", "TSF", "F", "S"), (50.0, 100.0)),
    "balanced": Strategy(("HSV", "Lab", "rgI"), ("CTSF", "TSF", "F", "S"), (80.0,)),
    "wide": Strategy(("HSV", "Lab"), ("CTSF", "TSF", "F", "S"), (50.0, 100.0)),
}
"""The paper's three (table 7: 1, 8 and 80 hierarchies), and three for the learned order (docs/ranking.md)."""

LEARNED_BY_DEFAULT = ("lean", "balanced", "wide")
"""Strategies whose boxes come in the learned order unless another is asked for."""


def resolve_strategy(strategy: str | Strategy) -> Strategy:
    """Return a strategy from its name or description; a `Strategy` is returned as it is.

    A description is `COLOUR_SPACES:SIMILARITIES:KS`, each a list with commas, optionally followed by
    `:sigma=NUMBER` and `:min_size=NUMBER`; "HSV,Lab:CTSF,TSF:50,100" is the same as `fast`.

    Raises:
        InvalidConfiguration: no strategy has that name, or the description is malformed.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if ":" in strategy:
        return _parse_strategy(strategy)
    if strategy not in STRATEGIES:
        raise InvalidConfiguration(
            f"unknown strategy {strategy!r}; choose {', '.join(STRATEGIES)}, or describe one as in "
            "'HSV,Lab:CTSF,TSF:50,100'"
        )
    return STRATEGIES[strategy]


def _parse_strategy(text: str) -> Strategy:
    spaces, similarities, *parts = text.split(":")
    try:
        ks = tuple(float(k) for k in "".join(parts[:1]).split(","))
        sigma, min_size = _parse_options(parts[1:])
    except ValueError as error:
        raise InvalidConfiguration(
            f"strategy {text!r} is not of the form 'HSV,Lab:CTSF,TSF:50,100[:sigma=0.8][:min_size=20]': "
            f"{error}"
        ) from error
    return Strategy(tuple(spaces.split(",")), tuple(similarities.split(",")), ks, sigma, min_size)


def _parse_options(parts: Sequence[str]) -> tuple[float, int | None]:
    sigma, min_size = 0.8, None
    for part in parts:
        name, _, value = part.partition("=")
        if name == "sigma":
            sigma = float(value)
        elif name == "min_size":
            min_size = int(value)
        else:
            raise ValueError(f"{name!r} is neither sigma nor min_size")
    return sigma, min_size
