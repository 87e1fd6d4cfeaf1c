"""What a worker's report says about its node, and what the driver does with it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from pipeline.engine import cluster
from pipeline.engine.node_versions import NodeVersions, VersionCheck
from pipeline.engine.shards import node_images
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.runner import ShardRunner
from pipeline.runs.report import Report

HERE = {"numpy": "2.4.6"}
THERE = {"numpy": "2.3.1"}


def test_a_report_names_the_node_and_its_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report()
    monkeypatch.setattr(node_images, "ray", SimpleNamespace(is_initialized=lambda: False))
    count_on_node(report, "read", 3)
    assert (report.images_by_node, report.versions_by_node) == ({}, {})
    context = SimpleNamespace(get_node_id=lambda: "3f2a9c1d77")
    fake_ray = SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setattr(node_images, "ray", fake_ray)
    monkeypatch.setattr(node_images, "read_own_versions", lambda: NodeVersions("10.0.0.2", THERE))
    count_on_node(report, "read", 3)
    total = Report()
    total.add(report)
    assert total.images_by_node == {"read 3f2a9c1d": 3}
    assert total.versions_by_node == {"10.0.0.2": THERE}


def test_a_run_names_a_node_with_other_versions_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pipeline.engine.node_versions")
    monkeypatch.setattr(cluster, "get_capacity", MagicMock())
    runner = ShardRunner(MagicMock(), "out", [], MagicMock(), versions=VersionCheck(HERE))
    for _ in range(2):
        runner._count(Report(images=1, versions_by_node={"10.0.0.1": HERE, "10.0.0.2": THERE}))
    (line,) = caplog.messages
    assert line.startswith("node 10.0.0.2 has numpy 2.3.1 instead of 2.4.6: ")
