"""The range of an option's value: one check and one wording for all jobs."""

from __future__ import annotations

from math import isnan

from pipeline.errors import InvalidConfiguration


def check_range(
    name: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Reject a value outside its range; None, an option that is not set, passes.

    Args:
        name: the option's field; `max_boxes` appears as `--max-boxes` in the message.
        value: an integer or float; NaN is outside every range.
        at_least: the smallest value allowed.
        above: a value that it must exceed.
        at_most: the largest value allowed.
        below: a value that it must stay under.

    Raises:
        InvalidConfiguration: `--max-boxes is 0, expected at least 1`.
    """
    if value is None:
        return
    is_inside = (
        not isnan(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    )
    if not is_inside:
        expected = _describe(at_least, above, at_most, below)
        raise InvalidConfiguration(f"--{name.replace('_', '-')} is {value}, expected {expected}")


def check_fields(
    options: object,
    *names: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Reject a dataclass of options if one of the fields `names` is outside the range.

    Raises:
        InvalidConfiguration: as `check_range` raises it.
    """
    for name in names:
        value = getattr(options, name)
        check_range(name, value, at_least=at_least, above=above, at_most=at_most, below=below)


def _describe(
    at_least: float | None, above: float | None, at_most: float | None, below: float | None
) -> str:
    if at_least is not None and at_most is not None:
        return f"{_format(at_least)} to {_format(at_most)}"
    bounds = {"at least": at_least, "more than": above, "at most": at_most, "less than": below}
    stated = [f"{word} {_format(bound)}" for word, bound in bounds.items() if bound is not None]
    return " and ".join(stated) or "a number"


def _format(bound: float) -> str:
    return f"{bound:.0f}" if float(bound).is_integer() else f"{bound:g}"
