"""A browser for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.report.browsing import launch_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from launch_browser()
