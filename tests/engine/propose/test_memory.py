"""Which images are searched on a node: those that fit into a core's share of its memory."""

from __future__ import annotations

import math

import pytest

from pipeline.engine.propose.memory import check_memory, compute_memory_limit
from pipeline.errors import ImageTooLarge


def test_a_core_has_its_share_of_the_nodes_memory() -> None:
    assert compute_memory_limit(16e9, 4) == 4e9 - 0.3e9
    assert compute_memory_limit(16e9, 0.5) == 16e9 - 0.3e9
    assert compute_memory_limit(0.2e9, 1) == 0
    assert compute_memory_limit(0, 4) == compute_memory_limit(16e9, 0) == math.inf


def test_an_image_is_measured_at_the_size_at_which_it_is_searched() -> None:
    check_memory(4000, 3000, None, 1.56e9)  # 12 million pixels at 130 bytes
    with pytest.raises(ImageTooLarge, match=r"4000x3000 pixels need 1\.6 GB .*pass --max-side"):
        check_memory(4000, 3000, None, 1.55e9)
    check_memory(4000, 3000, 2000, 0.39e9)
    with pytest.raises(ImageTooLarge, match="pass a smaller --max-side"):
        check_memory(4000, 3000, 2000, 0.38e9)
    check_memory(4000, 3000, 1, 0.12e9)
    with pytest.raises(ImageTooLarge, match=r"need 0\.1 GB .*shrink the image"):
        check_memory(4000, 3000, 1, 0.11e9)
    check_memory(1, 10**8, None, math.inf)
