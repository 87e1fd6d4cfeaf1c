"""Connecting to a cluster, and waiting for a core that other jobs hold, on a Ray of two cores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.engine import cluster
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import InvalidConfiguration, NoCapacity
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.placement import Need, Placement
from tests.engine.drawn_images import write_damaged_manifest
from tests.project_log import read_project_log

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def occupy_both_cores() -> Iterator[None]:
    """Another job's actor holds both cores."""

    @ray.remote(num_cpus=2)
    class Occupant:
        def ready(self) -> None: ...

    occupant = Occupant.remote()  # type: ignore[attr-defined]
    ray.get(occupant.ready.remote())
    yield
    ray.kill(occupant)


@pytest.mark.usefixtures("occupy_both_cores")
def test_a_run_waits_for_cores_that_other_jobs_hold_and_then_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray itself would let the tasks wait for ever."""
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster, "LOG_EVERY", 0.5)
    output = tmp_path / "out"
    with pytest.raises(
        NoCapacity, match="for 2 s no task could start: waiting for CPU 1, which other"
    ):
        run_proposals(
            write_damaged_manifest(tmp_path),
            str(output),
            ProposalSettings("single"),
            RunOptions(no_capacity_after=2),
        )
    assert "waiting for CPU 1, which other jobs hold" in read_project_log(caplog)
    assert not list(output.glob("part-*"))


def test_a_resource_that_no_node_has_is_named_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    place = Placement({"cheap": 0.01}, {"market": "spot"})
    needs = [place.build_need(CPU=1), Need({"CPU": 2})]
    lack = r"cheap 0.01 \(of 1 living node none has more than 0\), a label market: spot \(of 1"
    with pytest.raises(NoCapacity, match=f"this machine lacks {lack}"):
        cluster.check_needs(needs, 300, may_grow=False)
    cluster.check_needs(needs, 300, may_grow=True)
    (line,) = read_project_log(caplog)  # nothing about the cores, which the node has
    assert line.startswith("waiting up to 300 s for cheap 0.01 (of 1 living node none has more")


def test_a_free_core_needs_no_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster, "LOG_EVERY", 10.0)
    cluster.await_core(60)
    assert not read_project_log(caplog)


@pytest.mark.parametrize("is_connected", [True, False])
def test_users_never_see_rays_unhandled_error(
    is_connected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray prints it for a failed task whose result is dropped; without the connection the test sees it."""
    monkeypatch.setenv("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # so that it is restored
    monkeypatch.delenv("RAY_IGNORE_UNHANDLED_ERRORS")

    @ray.remote(max_retries=0)
    def fail() -> None:
        raise ValueError("dropped on purpose")

    def has_seen_message() -> bool:
        return any(
            "Unhandled error" in message and "dropped on purpose" in message
            for message in caplog.messages
        )

    with cluster.connect_to_cluster() if is_connected else contextlib.nullcontext():
        fail.remote()
        deadline = time.monotonic() + (3 if is_connected else 30)
        while not has_seen_message() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert has_seen_message() != is_connected


def test_a_cluster_of_another_version_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reject(**options: object) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n")

    monkeypatch.setattr(cluster.ray, "init", reject)
    with pytest.raises(InvalidConfiguration) as error:
        cluster._start_ray("10.0.0.1:6379", None)
    assert str(error.value) == (
        "RAY_ADDRESS 10.0.0.1:6379: the connection failed: "
        "Version mismatch: The cluster was started with: Ray: 2.59.0"
    )
