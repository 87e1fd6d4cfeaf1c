"""A Ray cluster of real raylets on one machine: a head and nodes that join and are killed one by one.

    with Raylets({"PYTHONPATH": ...}) as cluster:
        node = cluster.join(cpus=1)
        subprocess.run(command, env=os.environ | cluster.environment)
        cluster.kill(node)

Everything listens on loopback, on ports of its own, with a token of its own; only processes below the
ones that were started here are ever killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.chaos.processes import awaited, below, command, end, naming, send
from tests.swift import free_port

START_SECONDS = 300
STARTS = 3
"""Tries to start a node: Ray itself gives up after 30 s, which a busy machine may need."""
STORE_BYTES = 120_000_000
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # Ray makes its workers nicer by 15 than a node is: on a busy machine they would hardly run.
    "RAY_worker_niceness": "0",
    # A node is told dead by its closed connection at once; this is for one that falls silent.
    "RAY_health_check_failure_threshold": "5",
}


class Node:
    """One raylet with its workers, below the process that `ray start --block` is."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.process = process
        self.name = name

    def raylet(self) -> int | None:
        """The raylet's pid, once it runs."""
        for pid in below(self.process.pid):
            if "/raylet/raylet " in command(pid):
                return pid
        return None

    def workers(self, title: str) -> list[int]:
        """The workers whose title starts so: `_read_piece`, `DetectorActor`."""
        return [pid for pid in below(self.process.pid) if command(pid).startswith(f"ray::{title}")]


class Raylets:
    """A head without cores, so that all work is on nodes that can be killed, and those nodes."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        head_cpus: int = 0,
        *,
        dashboard: bool = False,
    ) -> None:
        """Prepare a cluster; it starts with the `with` block.

        Args:
            environment: what workers and drivers find in theirs.
            head_cpus: cores of the head, whose loss is the cluster's.
            dashboard: start the dashboard, which takes submitted jobs.
        """
        # A socket's path may have 107 characters, of which Ray takes most.
        self.folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: list[Node] = []
        self.head_cpus = head_cpus
        self._token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._environment = dict(environment or {})
        self.dashboard_port = free_port() if dashboard else None

    @property
    def environment(self) -> dict[str, str]:
        """What a driver's environment needs: the nodes' own, and where and how to connect."""
        return self._environment | self._token | QUIET | {"RAY_ADDRESS": self.address}

    def __enter__(self) -> Raylets:
        try:
            self._start(
                "head", self.head_cpus, "--head", f"--port={self.port}", *self._head_options()
            )
        except BaseException:
            self.close()
            raise
        return self

    def _head_options(self) -> list[str]:
        if self.dashboard_port is None:
            return ["--include-dashboard=false", f"--temp-dir={self.folder}"]
        port = f"--dashboard-port={self.dashboard_port}"
        return ["--include-dashboard=true", port, f"--temp-dir={self.folder}"]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def join(
        self, cpus: int = 1, resources: Mapping[str, float] | None = None, name: str | None = None
    ) -> Node:
        """Start a node and wait until it belongs to the cluster."""
        name = name or f"node{len(self.nodes)}"
        told = json.dumps(dict(resources or {}))
        return self._start(name, cpus, f"--address={self.address}", f"--resources={told}")

    def kill(self, node: Node) -> None:
        """SIGKILL a raylet; its workers, and what else ran for the node, go with it."""
        end(node.process)
        self.nodes.remove(node)

    def workers(self, title: str) -> list[int]:
        """The workers of all nodes whose title starts so."""
        return [pid for node in self.nodes for pid in node.workers(title)]

    def close(self) -> None:
        """End all nodes, the head last, and remove what they wrote."""
        while self.nodes:
            end(self.nodes.pop().process)
        send(naming(self.folder), signal.SIGKILL)  # what a node that did not come up left behind
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, cpus: int, *options: str) -> Node:
        for _ in range(STARTS - 1):
            with contextlib.suppress(RuntimeError):
                return self._started(name, cpus, *options)
        return self._started(name, cpus, *options)

    def _started(self, name: str, cpus: int, *options: str) -> Node:
        first = free_ports(60)
        started = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options),
            *("--node-ip-address=127.0.0.1", f"--node-name={name}", f"--num-cpus={cpus}"),
            *(
                f"--dashboard-agent-listen-port={free_port()}",  # the default is every cluster's
                "--num-gpus=0",
                "--include-log-monitor=false",
                f"--object-store-memory={STORE_BYTES}",
                "--disable-usage-stats",
            ),
            *(f"--min-worker-port={first}", f"--max-worker-port={first + 59}"),
        ]
        log = self.folder.with_name(f"{self.folder.name}-{name}.log")
        with log.open("wb") as told:
            process = subprocess.Popen(
                started,
                env=os.environ | self._environment | self._token | QUIET,
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
            )
        node = Node(process, name)
        self.nodes.append(node)

        def ready() -> bool:
            if process.poll() is not None:
                self.nodes.remove(node)
                raise RuntimeError(f"node {name} did not start: {log.read_text()[-1500:]}")
            return "Ray runtime started" in log.read_text() and node.raylet() is not None

        try:
            awaited(ready, f"node {name} of the Ray cluster", START_SECONDS, every=0.1)
        finally:
            log.unlink()
        return node


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nothing listens on."""
    while True:
        first = free_port()
        if first + count < 65_000 and all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
