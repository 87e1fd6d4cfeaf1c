"""Cells of CSV files."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.csv_cells import escape_cell, format_rows


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "＝x", "'quoted"])
def test_what_begins_like_a_formula_has_an_apostrophe(text: str) -> None:
    assert escape_cell(text) == f"'{text}"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_the_text_comes_back_without_one_apostrophe(text: str) -> None:
    data = format_rows([[escape_cell(text), 1]]).decode()
    ((cell, number),) = csv.reader(io.StringIO(data, newline=""))
    assert (cell.removeprefix("'"), number) == (text, "1")
