"""Names nodes whose packages have other versions than the driver's: their rows may differ.

Ray itself rejects nodes with another version of Ray or Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from pipeline.run_record import collect_versions


@dataclass(frozen=True)
class NodeVersions:
    """What one node has."""

    address: str
    """Its IP address."""
    versions: Mapping[str, str]
    """As `collect_versions` returns them: packages that decide numbers and files."""


def read_own_versions() -> NodeVersions:
    """The versions on the node of the task that calls this."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return NodeVersions(address, collect_versions())


def describe_differences(driver: Mapping[str, str], nodes: Sequence[NodeVersions]) -> list[str]:
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
                f"node {node.address} has {', '.join(differing)}: its rows may differ; "
                "install the same versions everywhere (constraints.txt)"
            )
    return lines
