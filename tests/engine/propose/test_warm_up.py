"""The warm-up before the shards: every worker of a node has the kernels when it ends."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray

from pipeline.engine.node_versions import VersionCheck
from pipeline.engine.propose import warm_up
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.placement import ANYWHERE
from tests.project_log import read_project_log


@ray.remote(num_cpus=1)
def _has_kernels() -> tuple[int, bool]:
    time.sleep(0.5)  # so that each of the two workers takes one task
    return os.getpid(), "pipeline.proposals.hierarchy" in sys.modules


def _list_meetings() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("warm-up-*"))


@pytest.mark.usefixtures("ray_cluster")
def test_every_worker_has_the_kernels() -> None:
    before = _list_meetings()
    warm_up.warm_up_workers(ProposalSettings(strategy="single"))
    workers = ray.get([_has_kernels.remote() for _ in range(2)])
    assert len({pid for pid, _ in workers}) == 2
    assert all(loaded for _, loaded in workers)
    assert _list_meetings() <= before


@pytest.mark.usefixtures("ray_cluster")
def test_nodes_with_other_versions_are_named_before_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Tasks that need no kernels, as with stored proposals."""
    warm_up.compare_nodes(ANYWHERE, VersionCheck())
    assert not [line for line in read_project_log(caplog) if "instead of" in line]
    warm_up.compare_nodes(ANYWHERE, VersionCheck({"numpy": "0.1"}))
    (line,) = [line for line in read_project_log(caplog) if "instead of" in line]
    assert "instead of 0.1" in line


@pytest.mark.usefixtures("ray_cluster")
def test_busy_cores_do_not_delay_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "COMPILE_TIMEOUT", 0.2)
    monkeypatch.setattr(warm_up, "LOAD_TIMEOUT", 0.2)

    @ray.remote(num_cpus=2)
    def hold() -> None:
        time.sleep(60)

    holder = hold.remote()
    time.sleep(1)
    try:
        started = time.monotonic()
        warm_up.warm_up_workers(ProposalSettings(strategy="single"))
        assert time.monotonic() - started < 30
    finally:
        ray.cancel(holder, force=True)


@pytest.mark.usefixtures("ray_cluster")
def test_kernels_that_compile_nowhere_end_the_run_at_once() -> None:
    """Retrying each shard would take minutes to say the same."""
    settings = ProposalSettings(strategy="single")
    object.__setattr__(settings, "strategy", 7)  # no kernel takes it
    with pytest.raises(InvalidConfiguration, match="cannot be compiled on any node: "):
        warm_up.warm_up_workers(settings)
