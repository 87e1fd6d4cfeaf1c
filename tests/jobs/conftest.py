"""Fixtures of the jobs' tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pipeline.engine import cluster


@contextlib.contextmanager
def _no_ray() -> Iterator[None]:
    pytest.fail("Ray was started before the input was checked")
    yield


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """To start Ray is a failure of the test: what is wrong must be found before."""
    monkeypatch.setattr(cluster, "connected", _no_ray)
    monkeypatch.setattr(cluster, "is_own", lambda: True)  # whatever other tests have started
