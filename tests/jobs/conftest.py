"""Fixtures of the jobs' tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pipeline.engine import cluster


@contextlib.contextmanager
def _fail() -> Iterator[None]:
    pytest.fail("Ray started before the input was checked")
    yield


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if Ray starts: wrong input must be reported before."""
    monkeypatch.setattr(cluster, "connect_to_cluster", _fail)
    # Other tests of this process may have started a cluster.
    monkeypatch.setattr(cluster, "is_local", lambda: True)
