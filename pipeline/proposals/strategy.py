"""Which hierarchies a selective search builds: colour spaces x segmentation scales x similarities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.errors import InvalidConfiguration

COLOUR_SPACES = ("RGB", "I", "Lab", "rgI", "HSV", "rgb", "C", "H")
"""The paper's eight (table 1): `rgb` is normalised RGB, `rgI` its r and g with intensity, `C` the colour
invariant of Geusebroek et al. (2001), `H` the hue of HSV."""

MEASURES = "CTSF"
"""Colour, texture, size and fill (section 3.2, equations 1-4)."""


def _check_choices(what: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not chosen:
        raise InvalidConfiguration(f"a strategy needs at least one {what}")
    for name in chosen:
        if name not in known:
            raise InvalidConfiguration(f"unknown {what} {name!r}; there are {', '.join(known)}")


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
    """Pixels that an initial segment has at least; None takes each k itself, as the authors do."""

    def __post_init__(self) -> None:
        _check_choices("colour space", self.colour_spaces, COLOUR_SPACES)
        if not self.similarities or not self.ks:
            raise InvalidConfiguration("a strategy needs at least one similarity and one k")
        for name in self.similarities:
            if not name or len(set(name)) != len(name) or not set(name) <= set(MEASURES):
                raise InvalidConfiguration(
                    f"similarity {name!r} is not a subset of {MEASURES} (such as CTSF, TSF, F)"
                )
        if not all(0 < k < float("inf") for k in self.ks):
            raise InvalidConfiguration(f"every k must be positive and finite, got {self.ks}")
        if not 0 <= self.sigma <= 16:
            raise InvalidConfiguration(f"sigma must be within 0 and 16 pixels, got {self.sigma}")
        if self.min_size is not None and self.min_size < 1:
            raise InvalidConfiguration(f"min_size must be at least 1, got {self.min_size}")

    @property
    def hierarchies(self) -> int:
        """How many groupings it makes."""
        return len(self.colour_spaces) * len(self.similarities) * len(self.ks)

    def min_size_for(self, k: float) -> int:
        """The smallest segment, in pixels, of the segmentation at scale `k`."""
        return round(k) if self.min_size is None else self.min_size

    def parameters(self) -> dict[str, Any]:
        """All parameters as JSON values."""
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
}
"""The paper's three (table 7): 1, 8 and 80 hierarchies."""


def resolve(strategy: str | Strategy) -> Strategy:
    """The strategy itself, the one of that name, or the one that a text describes.

    A text is `COLOUR_SPACES:SIMILARITIES:KS`, each a list with commas, and may go on with `:sigma=NUMBER`
    and `:min_size=NUMBER`; "HSV,Lab:CTSF,TSF:50,100" is what `fast` stands for.

    Raises:
        InvalidConfiguration: no strategy has that name, or the text describes none.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if ":" in strategy:
        return _described(strategy)
    if strategy not in STRATEGIES:
        raise InvalidConfiguration(
            f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}, and one's own as in "
            "'HSV,Lab:CTSF,TSF:50,100'"
        )
    return STRATEGIES[strategy]


def _described(text: str) -> Strategy:
    spaces, similarities, *rest = text.split(":")
    ks, further = rest[:1], dict(part.partition("=")[::2] for part in rest[1:])
    try:
        return Strategy(
            tuple(spaces.split(",")),
            tuple(similarities.split(",")),
            tuple(float(k) for k in "".join(ks).split(",")),
            sigma=float(further.pop("sigma", "0.8")),
            min_size=int(further.pop("min_size")) if "min_size" in further else None,
            **{name: _no_such_part(name) for name in further},
        )
    except ValueError as error:
        raise InvalidConfiguration(
            f"strategy {text!r} is not of the form 'HSV,Lab:CTSF,TSF:50,100[:sigma=0.8][:min_size=20]': "
            f"{error}"
        ) from error


def _no_such_part(name: str) -> NoReturn:
    raise ValueError(f"{name!r} is neither sigma nor min_size")
