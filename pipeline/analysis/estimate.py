"""A figure with the interval that a bootstrap over images gives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A rate or a score, and how far another sample of images could move it."""

    value: float | None
    """None if nothing was counted that defines it, such as recall without objects."""
    low: float | None = None
    """The 2.5th percentile over the resamples; None without resamples."""
    high: float | None = None
    """The 97.5th percentile."""


UNDEFINED = Estimate(None)


def divide(numerator: float, denominator: float) -> Estimate:
    """The ratio as an estimate without an interval; undefined if the denominator is 0."""
    return Estimate(float(numerator) / float(denominator)) if denominator else UNDEFINED
