"""The warm-up before the fan-out: every worker of a node has the kernels when it ends."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray

from pipeline.engine.propose import warm_up
from pipeline.proposals.settings import ProposalSettings


@ray.remote(num_cpus=1)
def _kernels_are_loaded() -> tuple[int, bool]:
    time.sleep(0.5)  # so that both workers take one
    return os.getpid(), "pipeline.proposals.hierarchy" in sys.modules


def _meetings() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("warm-up-*"))


@pytest.mark.usefixtures("ray_cluster")
def test_every_worker_is_warm() -> None:
    before = _meetings()
    warm_up.warm_up(ProposalSettings(strategy="single"))
    found = ray.get([_kernels_are_loaded.remote() for _ in range(2)])
    assert len({pid for pid, _ in found}) == 2
    assert all(loaded for _, loaded in found)
    assert _meetings() <= before


@pytest.mark.usefixtures("ray_cluster")
def test_busy_cores_do_not_hold_the_run_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "COMPILE_SECONDS", 0.2)
    monkeypatch.setattr(warm_up, "LOAD_SECONDS", 0.2)

    @ray.remote(num_cpus=2)
    def hold() -> None:
        time.sleep(60)

    holder = hold.remote()
    time.sleep(1)
    try:
        started = time.monotonic()
        warm_up.warm_up(ProposalSettings(strategy="single"))
        assert time.monotonic() - started < 30
    finally:
        ray.cancel(holder, force=True)
