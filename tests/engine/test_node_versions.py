"""Nodes with other versions than the driver's are named."""

from __future__ import annotations

import logging

import pytest

from pipeline.engine.node_versions import (
    NodeVersions,
    VersionCheck,
    collect_compared_versions,
    describe_differences,
)

DRIVER = {"fast-rcnn-pipeline": "0.1.0", "numpy": "2.4.6", "pillow": "13.0.0", "torch": "2.15.0"}


def test_equal_nodes_are_not_named() -> None:
    nodes = [NodeVersions("10.0.0.1", DRIVER), NodeVersions("10.0.0.2", dict(DRIVER))]
    assert describe_differences(DRIVER, nodes) == []


def test_a_node_is_named_with_what_differs() -> None:
    other = DRIVER | {"numpy": "2.3.1", "pillow": "12.0.0"}
    (line,) = describe_differences(
        DRIVER, [NodeVersions("10.0.0.1", DRIVER), NodeVersions("10.0.0.2", other)]
    )
    assert line.startswith(
        "node 10.0.0.2 has numpy 2.3.1 instead of 2.4.6, pillow 12.0.0 instead of 13.0.0: "
    )


def test_builds_and_missing_packages_do_not_count() -> None:
    without_torch = {name: version for name, version in DRIVER.items() if name != "torch"}
    for_cores = DRIVER | {"torch": "2.15.0+cpu", "numba": "0.68.1"}
    nodes = [NodeVersions("10.0.0.1", without_torch), NodeVersions("10.0.0.2", for_cores)]
    assert describe_differences(DRIVER, nodes) == []


def test_a_node_is_named_once_whenever_it_joins(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pipeline.engine.node_versions")
    check = VersionCheck(DRIVER)
    late = NodeVersions("10.0.0.2", DRIVER | {"numpy": "2.3.1"})
    check.check([NodeVersions("10.0.0.1", DRIVER)])
    assert caplog.messages == []
    for _ in range(3):
        check.check([NodeVersions("10.0.0.1", DRIVER), late])
    (line,) = caplog.messages
    assert line.startswith("node 10.0.0.2 has numpy 2.3.1 instead of 2.4.6: ")


def test_packages_of_stores_are_compared() -> None:
    assert {"numpy", "fsspec", "s3fs"} <= collect_compared_versions().keys()
