"""Waiting for a core that others hold, on a Ray of two cores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipeline.engine import cluster
from pipeline.engine.propose import run as proposal_run
from pipeline.errors import InvalidConfiguration, NoCapacity
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import damaged_manifest
from tests.swift import free_port

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def occupied() -> Iterator[None]:
    """Another job's actor holds both cores."""

    @ray.remote(num_cpus=2)
    class Occupant:
        def ready(self) -> None: ...

    occupant = Occupant.remote()  # type: ignore[attr-defined]
    ray.get(occupant.ready.remote())
    yield
    ray.kill(occupant)


@pytest.mark.usefixtures("occupied")
def test_cores_that_others_hold_are_told_and_then_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray itself would let the tasks wait for ever."""
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster, "SILENCE", 0.5)
    output = tmp_path / "out"
    with pytest.raises(
        NoCapacity, match="for 2 s no task could start, missing is CPU 1, which other"
    ):
        proposal_run.run(
            damaged_manifest(tmp_path),
            str(output),
            ProposalSettings("single"),
            RunOptions(no_capacity_after=2),
        )
    assert "waiting for CPU 1, which other jobs hold" in caplog.messages
    assert not list(output.glob("part-*"))


def test_a_free_core_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(cluster, "SILENCE", 10.0)
    cluster.await_core(60)
    assert not caplog.messages


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nothing_answers_is_told_at_once(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = form.format(f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    told = f"RAY_ADDRESS {address}: nothing answers there: Connection refused"
    with pytest.raises(InvalidConfiguration, match=told), cluster.connected():
        pass


def test_local_and_auto_are_no_addresses_to_knock_at() -> None:
    for address in ("local", "auto"):
        cluster._check_answers(address)
