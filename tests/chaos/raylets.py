"""A Ray cluster of real raylets on one machine: a head and nodes that join and are killed one by one.

    with Raylets({"PYTHONPATH": ...}) as cluster:
        node = cluster.add_node(cpus=1)
        subprocess.run(command, env=os.environ | cluster.environment)
        cluster.kill_node(node)

Everything listens on loopback, on free ports, with a separate token. Only descendants of the processes
started here are ever killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.chaos.node import Node, find_free_ports
from tests.chaos.processes import find_by_path, kill_tree, send_signal, wait_until
from tests.swift import find_free_port

START_SECONDS = 300
STARTS = 3
"""Attempts to start a node, because Ray gives up after 30 s, which may be too short on a busy machine."""
STORE_BYTES = 120_000_000
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # By default Ray adds 15 to its workers' niceness, so that they hardly run on a busy machine.
    "RAY_worker_niceness": "0",
    # Ray notices a closed connection at once; this setting is for nodes that fall silent.
    "RAY_health_check_failure_threshold": "5",
}


class Raylets:
    """A head without cores and nodes that can be killed, on which all work runs."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        head_cpus: int = 0,
        *,
        dashboard: bool = False,
        store_bytes: int = STORE_BYTES,
        head_environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a cluster; the `with` block starts it.

        Args:
            environment: variables of the workers and drivers.
            head_cpus: cores of the head.
            dashboard: start the dashboard, which accepts submitted jobs.
            store_bytes: size of each node's object store.
            head_environment: variables of the head alone.
        """
        # A socket's path may have 107 characters, and Ray uses most of them.
        self.folder = Path(tempfile.mkdtemp(prefix="rl-", dir="/tmp"))
        self.port = find_free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: list[Node] = []
        self.head_cpus = head_cpus
        self._token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._environment = dict(environment or {})
        self.dashboard_port = find_free_port() if dashboard else None
        self.store_bytes = store_bytes
        self._head_environment = dict(head_environment or {})
        self._joined = 1

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a driver needs: those of the nodes, the address and the token."""
        return self._environment | self._token | QUIET | {"RAY_ADDRESS": self.address}

    def __enter__(self) -> Raylets:
        try:
            self.start_head()
        except BaseException:
            self.close()
            raise
        return self

    def start_head(self) -> None:
        """Start the head, on the same port as before if it was killed."""
        options = ("--head", f"--port={self.port}", *self._head_options())
        self.head = self._start("head", self.head_cpus, *options, more=self._head_environment)

    def _head_options(self) -> list[str]:
        if self.dashboard_port is None:
            return ["--include-dashboard=false"]
        client_port = (
            f"--ray-client-server-port={find_free_port()}"  # all clusters share the default
        )
        port = f"--dashboard-port={self.dashboard_port}"
        return ["--include-dashboard=true", port, client_port]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add_node(
        self,
        cpus: int = 1,
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
        *,
        options: Sequence[str] = (),
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a node and wait until it has joined the cluster.

        Args:
            cpus: its cores.
            resources: its custom resources.
            name: its name; by default a number.
            options: more options of `ray start`.
            before: a command that runs `ray start`, such as `unshare`.
            environment: variables of this node alone.
        """
        name = name or f"node{self._joined}"
        self._joined += 1
        encoded = json.dumps(dict(resources or {}))
        options = (f"--address={self.address}", f"--resources={encoded}", *options)
        return self._start(name, cpus, *options, before=before, more=environment)

    def kill_node(self, node: Node) -> None:
        """SIGKILL a raylet with its workers and all other processes of the node."""
        kill_tree(node.process)
        self.nodes.remove(node)

    def drain_node(self, node: Node, seconds: int) -> None:
        """Announce that a node ends in some seconds, as autoscalers do for spot instances."""
        reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "preempted")
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node", *reason),
                *(f"--address={self.address}", f"--node-id={node.read_id()}"),
                f"--deadline-remaining-seconds={seconds}",
            ],
            env=os.environ | self.environment,
            capture_output=True,
            check=True,
        )

    def terminate_node(self, node: Node, seconds: float = 30) -> None:
        """SIGTERM all processes of a node, as a machine that shuts down does, and SIGKILL what is left.

        Processes that were stopped get SIGTERM before they go on.
        """
        node.send_signal(signal.SIGTERM, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(seconds)
        self.kill_node(node)

    def list_workers(self, title: str) -> list[int]:
        """The pids of all nodes' workers whose title starts with `title`."""
        return [pid for node in self.nodes for pid in node.list_workers(title)]

    def list_busy_workers(self) -> list[int]:
        """The pids of all nodes' workers that belong to a job."""
        return [pid for node in self.nodes for pid in node.list_busy_workers()]

    def close(self) -> None:
        """Kill all nodes, the head last, and remove their files."""
        while self.nodes:
            kill_tree(self.nodes.pop().process)
        # A node that failed to start may have left processes behind.
        send_signal(find_by_path(self.folder), signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(
        self,
        name: str,
        cpus: int,
        *options: str,
        before: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
    ) -> Node:
        for _ in range(STARTS - 1):
            with contextlib.suppress(RuntimeError):
                return self._start_once(name, cpus, options, before, more or {})
        return self._start_once(name, cpus, options, before, more or {})

    def _start_once(
        self,
        name: str,
        cpus: int,
        options: Sequence[str],
        before: Sequence[str],
        more: Mapping[str, str],
    ) -> Node:
        first = find_free_ports(60)
        # Nodes that share a folder unpack a submitted job's code under each other's running workers.
        folder = tempfile.mkdtemp(prefix="", dir=self.folder)
        command = [
            *(*before, sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options),
            *("--node-ip-address=127.0.0.1", f"--node-name={name}", f"--num-cpus={cpus}"),
            *(
                f"--dashboard-agent-listen-port={find_free_port()}",  # all clusters share the default port
                f"--metrics-export-port={find_free_port()}",
                f"--temp-dir={folder}",
                "--num-gpus=0",
                "--include-log-monitor=false",
                f"--object-store-memory={self.store_bytes}",
                "--disable-usage-stats",
            ),
            *(f"--min-worker-port={first}", f"--max-worker-port={first + 59}"),
        ]
        log = self.folder.with_name(f"{self.folder.name}-{name}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=os.environ | self._environment | self._token | QUIET | dict(more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        node = Node(process, name)
        self.nodes.append(node)

        def is_ready() -> bool:
            if process.poll() is not None:
                self.nodes.remove(node)
                raise RuntimeError(f"node {name} failed to start: {log.read_text()[-1500:]}")
            return "Ray runtime started" in log.read_text() and node.find_raylet() is not None

        try:
            wait_until(is_ready, f"start of Ray node {name}", START_SECONDS, interval=0.1)
        finally:
            log.unlink()
        return node
