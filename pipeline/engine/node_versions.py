"""Names nodes whose packages have other versions than the driver's: their rows may differ.

Ray itself rejects nodes with another version of Ray or Python. Workers state their versions with what they
return, so that nodes that join during a run are compared too.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

import ray

from pipeline.run_record import collect_versions

log = logging.getLogger(__name__)

STORE_PACKAGES = ("fsspec", "s3fs", "aiobotocore", "gcsfs", "adlfs")
"""What reads and writes stores: no number depends on them, but errors and options do."""


@dataclass(frozen=True)
class NodeVersions:
    """What one node has."""

    address: str
    """Its IP address."""
    versions: Mapping[str, str]
    """As `collect_compared_versions` returns them."""


class VersionCheck:
    """Warns of each node with other versions than the driver's once."""

    def __init__(self, driver: Mapping[str, str] | None = None) -> None:
        """Start without any node.

        Args:
            driver: the versions to compare with; None takes those of this process.
        """
        self._driver = collect_compared_versions() if driver is None else driver
        self._described: set[str] = set()

    def check(self, nodes: Iterable[NodeVersions]) -> None:
        """Log a warning for each node that differs and was not named yet."""
        for line in describe_differences(self._driver, nodes):
            if line not in self._described:
                self._described.add(line)
                log.warning("%s", line)


def collect_compared_versions() -> dict[str, str]:
    """Versions here of the packages that decide numbers and files, and of those that reach stores."""
    versions = collect_versions()
    for name in STORE_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def read_own_versions() -> NodeVersions:
    """The versions on the node of the task that calls this."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return NodeVersions(address, collect_compared_versions())


def describe_differences(driver: Mapping[str, str], nodes: Iterable[NodeVersions]) -> list[str]:
    """One line per node that differs from the driver, in the order of the nodes.

    A package that one of them lacks is no difference, because not every node needs torch, nor is the build of
    one version, such as 2.15.0+cpu.
    """
    lines = []
    for node in nodes:
        differing = [
            f"{name} {version} instead of {driver[name]}"
            for name, version in node.versions.items()
            if name in driver and version.partition("+")[0] != driver[name].partition("+")[0]
        ]
        if differing:
            lines.append(
                f"node {node.address} has {', '.join(differing)}: its rows or errors may differ; "
                "install the same versions everywhere (constraints.txt)"
            )
    return lines
