"""A node of the fault suite's Ray cluster: its processes, its id, and free ports for it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess

from tests.chaos.processes import list_descendants, read_command, send_signal
from tests.swift import find_free_port

_IDLE = ("IDLE", "DashboardAgent", "RuntimeEnvAgent")
"""Titles of processes of a node that work for no job."""


class Node:
    """One raylet with its workers, as descendants of a `ray start --block` process."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.process = process
        self.name = name

    def find_raylet(self) -> int | None:
        """The raylet's pid, or None before it runs."""
        for pid in list_descendants(self.process.pid):
            if "/raylet/raylet " in read_command(pid):
                return pid
        return None

    def read_id(self) -> str:
        """The hexadecimal id that Ray gave the node.

        Raises:
            RuntimeError: its raylet does not run.
        """
        raylet = self.find_raylet()
        match = re.search(r"--node_id=([0-9a-f]+)", read_command(raylet) if raylet else "")
        if match is None:
            raise RuntimeError(f"node {self.name} has no raylet")
        return match[1]

    def list_workers(self, title: str) -> list[int]:
        """The pids of workers whose title starts with `title`, such as `_read_piece`."""
        pids = list_descendants(self.process.pid)
        return [pid for pid in pids if read_command(pid).startswith(f"ray::{title}")]

    def list_busy_workers(self) -> list[int]:
        """The pids of workers that belong to a job, without Ray's own agents and spare workers."""
        return sorted({*self.list_workers("")} - {p for t in _IDLE for p in self.list_workers(t)})

    def send_signal(self, *numbers: signal.Signals) -> None:
        """Send signals, one after the other, to all processes of the node."""
        pids = [self.process.pid, *list_descendants(self.process.pid)]
        for number in numbers:
            send_signal(pids, number)


def find_free_ports(count: int) -> int:
    """The first of `count` consecutive free ports."""
    while True:
        first = find_free_port()
        if first + count < 65_000 and all(_is_free(port) for port in range(first, first + count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
