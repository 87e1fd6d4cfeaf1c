"""start-head.sh and start-worker.sh, run with a `ray` that notes how it was called; the ports that they list.

The nodes of one machine cannot share their fixed ports, so the demo starts its nodes without them.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster_files import CLUSTER, find_commands
from tests.cluster.ray_options import parse_ray

RAY = """#!/bin/sh
printf '%s\\n' "$@" > "$NOTES/words"
env > "$NOTES/environment"
"""
ON_ALL_NODES = [
    *("--object-manager-port=8076", "--node-manager-port=8077"),
    *("--dashboard-agent-listen-port=52365", "--dashboard-agent-grpc-port=52366"),
    *("--runtime-env-agent-port=52367", "--metrics-export-port=8080"),
    *("--min-worker-port=20000", "--max-worker-port=20999"),
]
HEAD = [
    *("start", "--head", "--block", "--num-cpus=0", "--port=6379"),
    *("--dashboard-host=0.0.0.0", "--dashboard-port=8265", "--ray-client-server-port=10001"),
    *ON_ALL_NODES,
]
WORKER = ["start", "--block", "--address=10.0.0.1:6379", *ON_ALL_NODES]
SCRIPTS = {"start-head.sh": HEAD, "start-worker.sh": WORKER}
ADDRESS = {"start-head.sh": [], "start-worker.sh": ["10.0.0.1:6379"]}


@dataclass(frozen=True)
class Call:
    """How a script called `ray`."""

    words: list[str]
    environment: dict[str, str]


def _run(script: str, arguments: list[str], folder: Path) -> Call:
    """Run a script with a token, and a `ray` before all others in PATH."""
    ray = folder / "bin" / "ray"
    ray.parent.mkdir()
    ray.write_text(RAY)
    ray.chmod(0o755)
    subprocess.run(
        ["bash", CLUSTER / script, *arguments],
        check=True,
        timeout=60,
        env={
            "PATH": f"{ray.parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(folder),
            "NOTES": str(folder),
            "RAY_AUTH_TOKEN": "0" * 64,
        },
    )
    lines = (folder / "environment").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    return Call((folder / "words").read_text().splitlines(), variables)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_starts_ray_in_exactly_this_way(script: str, tmp_path: Path) -> None:
    call = _run(script, ADDRESS[script], tmp_path)
    assert call.words == SCRIPTS[script]
    assert call.environment["RAY_AUTH_MODE"] == "token"
    assert call.environment["RAY_AUTH_TOKEN"] == "0" * 64
    assert call.environment["RAY_USAGE_STATS_ENABLED"] == "0"
    stop_seconds = call.environment.get("RAY_JOB_STOP_WAIT_TIME_S")
    assert stop_seconds == ("30" if script == "start-head.sh" else None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_further_arguments_reach_ray_and_win(script: str, tmp_path: Path) -> None:
    further = ["--num-cpus", "8", "--resources", '{"driver": 1}', "--node-manager-port=9001"]
    call = _run(script, [*ADDRESS[script], *further], tmp_path)
    assert call.words == [*SCRIPTS[script], *further]
    options = parse_ray(call.words)
    assert (options["num_cpus"], options["resources"]) == (8, '{"driver": 1}')
    assert options["node_manager_port"] == 9001
    assert options["object_manager_port"] == 8076


def test_by_default_the_head_has_no_cores_and_a_worker_has_its_own() -> None:
    assert parse_ray(HEAD)["num_cpus"] == 0
    assert parse_ray(WORKER)["num_cpus"] is None


@pytest.mark.parametrize("arguments", [[], ["--num-cpus=8"]])
def test_a_worker_needs_the_head_s_address(arguments: list[str]) -> None:
    ended = subprocess.run(
        ["bash", CLUSTER / "start-worker.sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "RAY_AUTH_TOKEN": "0" * 64},
    )
    assert ended.returncode == 2
    assert ended.stderr == "usage: cluster/start-worker.sh HEAD:6379 [OPTIONS OF ray start]\n"


def _list_ports(words: list[str]) -> set[int]:
    """The ports in the options of `ray start`; those of workers are a range."""
    options = [re.fullmatch(r"--([\w-]*port)=(\d+)", word) for word in words]
    ports = {match[1]: int(match[2]) for match in options if match}
    workers = range(ports.pop("min-worker-port"), ports.pop("max-worker-port") + 1)
    return {*ports.values(), *workers}


def _read_port_table() -> dict[str, set[int]]:
    """The ports that start-head.sh lists, by the machines that open them."""
    text = (CLUSTER / "start-head.sh").read_text()
    listed: dict[str, set[int]] = {"head": set(), "all": set()}
    for ports, machines in re.findall(r"(?m)^#   (\d[\d, -]*\d)  .*  (head|all)$", text):
        for part in ports.split(", "):
            first, _, last = part.partition(" - ")
            listed[machines] |= set(range(int(first), int(last or first) + 1))
    return listed


def test_the_listed_ports_are_those_of_the_commands() -> None:
    listed = _read_port_table()
    assert _list_ports(HEAD) == listed["head"] | listed["all"]
    assert _list_ports(WORKER) == listed["all"]
    assert not listed["head"] & listed["all"]


def test_documented_commands_take_the_head_s_ports_and_options_of_ray() -> None:
    options = parse_ray(HEAD)
    heads = [words for _, words in find_commands("cluster/start-head.sh")]
    workers = [words for _, words in find_commands("cluster/start-worker.sh")]
    assert heads
    assert workers
    for words in heads:
        parse_ray([*HEAD, *words])
    for address, *further in workers:
        assert address.endswith(f":{options['port']}")
        parse_ray([*WORKER, *further])
    readme = (CLUSTER / "README.md").read_text()
    addresses = re.findall(r"RAY_API_SERVER_ADDRESS=http://localhost:(\d+)", readme)
    assert set(addresses) == {str(options["dashboard_port"])}
