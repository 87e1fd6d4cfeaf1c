"""The store and the cluster of the demo: separate processes on free ports of this machine."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import storage
from tests.chaos.node import Node
from tests.chaos.raylets import Raylets
from tests.swift import Swift, apply_environment, find_free_port, forget_clients, make_environment

STOP_SECONDS = 60
"""How long `ray job stop` waits for a job to end by itself: Ray's 3 s are short on a busy machine."""


@contextlib.contextmanager
def start_store(bucket: str) -> Iterator[str]:
    """Start an object store with one bucket; inside the block, this process and its children can access it.

    Yields:
        The address of the store's S3 API.
    """
    environment = make_environment(find_free_port())
    address = environment["AWS_ENDPOINT_URL"]
    port = int(address.rpartition(":")[2])
    with pytest.MonkeyPatch.context() as patch:
        with Swift(port, environment["AWS_SECRET_ACCESS_KEY"]):
            apply_environment(environment, patch)
            forget_clients()
            store, _ = storage.get_filesystem(f"s3://{bucket}")
            store.mkdir(bucket)
            yield address
        forget_clients()


class LocalCluster:
    """A head without cores, which takes submitted jobs, and nodes of one core, which it counts."""

    def __init__(self) -> None:
        """Prepare the cluster; the `with` block starts its head."""
        # As in an activated environment, `python` of a submitted command is this Python.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        self.raylets = Raylets(environment, dashboard=True)
        self.nodes_started = 0
        """Nodes beside the head."""
        self.nodes_killed = 0

    def __enter__(self) -> LocalCluster:
        self.raylets.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self.raylets.close()

    def add_node(self) -> Node:
        """Start a node and wait until it has joined."""
        node = self.raylets.add_node()
        self.nodes_started += 1
        return node

    def kill_node(self) -> Node:
        """SIGKILL the newest node with its workers, as a machine that is switched off."""
        node = self.raylets.nodes[-1]
        self.raylets.kill_node(node)
        self.nodes_killed += 1
        return node
