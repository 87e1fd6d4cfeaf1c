"""What Ray Train gets from the environment."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.engine import cluster
from pipeline.engine.train import fit

INTERVAL, WATCHER = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"


@pytest.mark.parametrize(
    ("nodes", "given", "expected"),
    [
        (1, {}, {INTERVAL: "0.5", WATCHER: "0"}),
        (2, {}, {}),
        (1, {INTERVAL: "3", WATCHER: "1"}, {INTERVAL: "3", WATCHER: "1"}),
    ],
)
def test_one_node_is_looked_at_often_and_not_watched_for_its_end(
    nodes: int, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = dict(given)
    monkeypatch.setattr(fit.os, "environ", environment)
    monkeypatch.setattr(cluster, "get_capacity", lambda: SimpleNamespace(nodes=["node"] * nodes))
    assert fit._set_environment() == 60
    assert {name: environment.get(name) for name in (INTERVAL, WATCHER)} == {
        name: expected.get(name) for name in (INTERVAL, WATCHER)
    }
