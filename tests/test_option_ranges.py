from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields, check_range


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (0, {"at_least": 1}, "at least 1"),
        (0.0, {"above": 0}, "more than 0"),
        (inf, {"above": 0, "below": 1e9}, "more than 0 and less than 1000000000"),
        (1e9, {"above": 0, "below": 1e9}, "more than 0 and less than 1000000000"),
        (-0.1, {"at_least": 0, "at_most": 1}, "0 to 1"),
        (1.1, {"at_least": 0, "at_most": 1}, "0 to 1"),
        (0.6, {"at_most": 0.5}, "at most 0.5"),
        (nan, {"at_least": 0, "at_most": 1}, "0 to 1"),
        (nan, {"below": 3}, "less than 3"),
        (nan, {}, "a number"),
    ],
)
def test_a_value_outside_its_range_is_rejected(
    value: float, bounds: dict[str, float], expected: str
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        check_range("some_option", value, **bounds)
    assert str(caught.value) == f"--some-option is {value}, expected {expected}"


def test_bounds_are_inclusive_or_exclusive_as_named() -> None:
    check_range("x", 1, at_least=1, at_most=1)
    check_range("x", 0.001, above=0, below=0.002)
    check_range("x", None, at_least=1)


@dataclass
class _Options:
    max_boxes: int | None
    min_side: int


def test_the_first_field_outside_its_range_is_named() -> None:
    check_fields(_Options(None, 1), "max_boxes", "min_side", at_least=1)
    with pytest.raises(InvalidConfiguration, match=r"^--min-side is -1, expected at least 1$"):
        check_fields(_Options(2, -1), "max_boxes", "min_side", at_least=1)
    with pytest.raises(InvalidConfiguration, match=r"^--max-boxes is 0, expected at least 1$"):
        check_fields(_Options(0, -1), "max_boxes", "min_side", at_least=1)
