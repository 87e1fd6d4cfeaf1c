"""Stores in which a Ray head can keep its state: RocksDB in its own process, or a Redis server beside it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

from tests.chaos.processes import kill_tree, wait_until
from tests.swift import find_free_port

SERVERS = ("valkey-server", "redis-server")
"""Programs that speak Redis' protocol."""


def find_server() -> str | None:
    """A Redis server on the PATH."""
    return next((path for path in map(shutil.which, SERVERS) if path), None)


@contextlib.contextmanager
def keep_in_rocksdb() -> Iterator[dict[str, str]]:
    """A folder for a RocksDB.

    Yields:
        The head's variables.
    """
    with tempfile.TemporaryDirectory(prefix="head-") as folder:
        yield {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": folder}


@contextlib.contextmanager
def keep_in_redis(server: str) -> Iterator[dict[str, str]]:
    """Run a Redis server on a free port of loopback, which keeps all in memory.

    Yields:
        The head's variables.
    """
    port = find_free_port()
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        process = subprocess.Popen([server, *options], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: _is_open(port), f"start of {server}", 30, interval=0.05)
            yield {"RAY_REDIS_ADDRESS": f"127.0.0.1:{port}"}
        finally:
            kill_tree(process)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
