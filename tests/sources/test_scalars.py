from __future__ import annotations

import math
from typing import Any

import pytest

from pipeline.errors import UnreadableDataset
from pipeline.sources.scalars import check_text, read_flag, read_id, read_number, read_whole


@pytest.mark.parametrize("value", [1, 1.0, True, "1", " 1 ", "1.0", "true", "TRUE", "Yes", "on"])
def test_flags_that_are_set(value: Any) -> None:
    assert read_flag(value, "iscrowd", "here") is True


@pytest.mark.parametrize(
    "value", [0, 0.0, -0.0, False, "0", "0.0", "false", "False", "no", "off", None, "", " ", "NaN"]
)
def test_flags_that_are_not_set_or_absent(value: Any) -> None:
    assert read_flag(value, "iscrowd", "here") is False
    assert read_flag(math.nan, "iscrowd", "here") is False


@pytest.mark.parametrize("value", ["Unspecified", "unspecified ", "unknown"])
def test_flags_that_nobody_set(value: Any) -> None:
    assert read_flag(value, "difficult", "here") is None


@pytest.mark.parametrize("value", [2, -1, 0.5, "2", "maybe", [], [1], {}, math.inf, "00"])
def test_other_flags_are_rejected(value: Any) -> None:
    with pytest.raises(UnreadableDataset, match="here: field iscrowd is"):
        read_flag(value, "iscrowd", "here")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (0.0, "0"), ("0", "0"), ("0.0", "0"), (208, "208"), ("208", "208")),
        *((208.0, "208"), ("208.0", "208"), (-3, "-3"), ("-3.00", "-3"), (10**30, "1" + "0" * 30)),
        *((" a ", "a"), ("007", "007"), ("007.0", "007.0"), ("1.5", "1.5"), ("b (1)", "b (1)")),
    ],
)
def test_ids_of_one_number_are_equal_however_they_are_written(value: Any, text: str) -> None:
    assert read_id(value, "id", "here") == text


@pytest.mark.parametrize("value", [None, "", " ", math.nan, True, False, 1.5, [], {}, "\ud800"])
def test_values_that_are_no_id_are_rejected(value: Any) -> None:
    with pytest.raises(UnreadableDataset, match="here: field id is"):
        read_id(value, "id", "here")


def test_whole_numbers() -> None:
    values: list[Any] = [7, 7.0, "7", "007", "7.0", "+7"]
    assert {read_whole(value, "id", "here") for value in values} == {7}
    assert read_whole(str(-(2**63)), "id", "here") == -(2**63)
    wrong: list[Any] = [2**63, "9" * 5000, "a", "1e3", 7.5, True, None, "\u0661", "1_0"]
    for value in wrong:
        with pytest.raises(UnreadableDataset, match="here: field id is"):
            read_whole(value, "id", "here")


def test_numbers() -> None:
    values: list[Any] = [1.5, "1.5", " +1.50 ", "15e-1"]
    assert {read_number(value, "xmin", "here") for value in values} == {1.5}
    assert read_number(10**400, "xmin", "here") == math.inf
    assert read_number("-inf", "xmin", "here") == -math.inf
    assert math.isnan(read_number("NaN", "xmin", "here"))
    wrong: list[Any] = [True, None, "", "1_0", "a", "1,5", "\u0661", [1], {}, "0x10", "1" * 5000]
    for value in wrong:
        with pytest.raises(UnreadableDataset, match=r"here: field xmin is .*not a number"):
            read_number(value, "xmin", "here")


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "missing"), ("  ", "missing"), (5, "expected a text"), ("cat\ud83d", "valid Unicode")],
)
def test_texts_that_cannot_be_stored_are_rejected(value: Any, message: str) -> None:
    with pytest.raises(UnreadableDataset, match=f"here: field name is .*{message}") as caught:
        check_text(value, "name", "here")
    str(caught.value).encode()
