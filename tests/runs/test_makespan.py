"""What quantisation and the tail add to an even division of the work."""

from __future__ import annotations

import pytest

from pipeline.runs.makespan import compute_tail_factor


@pytest.mark.parametrize(
    ("rows", "slots", "factor"),
    [
        ([8] * 10, 2, 1.0),  # five each
        ([8] * 11, 2, 12 / 11),  # one slot has six
        ([8], 4, 4.0),  # three slots have nothing
        ([8, 8, 8, 2], 2, 16 * 2 / 26),  # 8+8, and 8+2
    ],
)
def test_tail_factor(rows: list[int], slots: int, factor: float) -> None:
    assert compute_tail_factor(rows, slots) == pytest.approx(factor)
