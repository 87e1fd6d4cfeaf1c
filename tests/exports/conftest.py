"""Fixtures of the tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports.worlds import World, write_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return write_world(tmp_path)
