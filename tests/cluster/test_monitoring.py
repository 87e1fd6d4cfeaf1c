"""Alerts and dashboard: queries that parse, over metrics that the jobs have."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from pipeline.engine.monitor import metrics
from pipeline.engine.shards.retry_policy import Cause
from tests.cluster.cluster_files import CLUSTER, read_resources
from tests.cluster.prometheus_fields import FIELDS, list_unknown_fields

RESOURCES = read_resources()
RULES = RESOURCES["alerts"]["spec"]["groups"][0]["rules"]


def _list_dashboard_queries() -> Iterator[str]:
    dashboard = json.loads((CLUSTER / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield str(target["expr"])


def _list_metrics() -> set[str]:
    """The names in Prometheus of the metrics that a run records."""
    tree = ast.parse(inspect.getsource(metrics))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            match node.func.attr:
                case "_add_counter":
                    names.add(f"ray_pipeline_{name}_total")
                case "_add_gauge":
                    names.add(f"ray_pipeline_{name}")
                case "_add_histogram":
                    names |= {f"ray_pipeline_{name}_{part}" for part in ("bucket", "sum", "count")}
    return names


def _parse(query: str) -> Any:
    return promql_parser.parse(query.replace("$__rate_interval", "5m"))


QUERIES = [rule["expr"] for rule in RULES] + list(_list_dashboard_queries())


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_parses_and_asks_for_metrics_of_the_jobs(query: str) -> None:
    _parse(query)
    names = set(re.findall(r"ray_pipeline_\w+", query))
    assert names
    assert names <= _list_metrics()


def test_a_broken_query_is_noticed() -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        _parse("sum by (job (ray_pipeline_images_total)")


def test_alerts_watch_progress_failures_and_the_store() -> None:
    names = {rule["alert"] for rule in RULES}
    assert {"FastRcnnNoProgress", "FastRcnnFailedImages", "FastRcnnStoreErrors"} <= names
    for rule in RULES:
        assert rule["labels"]["severity"] == "warning"
        assert rule["annotations"]["summary"]


def test_a_run_without_progress_is_noticed_when_the_alert_says_so() -> None:
    (rule,) = [rule for rule in RULES if rule["alert"] == "FastRcnnNoProgress"]
    (window,) = re.findall(r"\[(\d+)m\]", rule["expr"])
    minutes = int(window) + int(rule["for"].removesuffix("m"))
    assert rule["annotations"]["summary"].endswith(f"has done no image for {minutes} minutes")


def test_causes_in_alerts_are_those_that_are_counted() -> None:
    known = {"store"} | {cause.name.lower() for cause in Cause}
    for rule in RULES:
        for value in re.findall(r'cause=~?"([^"]*)"', rule["expr"]):
            assert set(value.split("|")) <= known


OF_THE_OPERATOR = ("alerts", "pod-monitor")


@pytest.mark.parametrize("name", OF_THE_OPERATOR)
def test_the_operator_knows_each_field(name: str) -> None:
    resource = RESOURCES[name]
    assert resource["apiVersion"] == "monitoring.coreos.com/v1"
    assert list_unknown_fields(resource, FIELDS[resource["kind"]]) == []


@pytest.mark.parametrize(
    ("name", "path", "wrong"),
    [
        ("alerts", "spec", "group"),
        ("alerts", "spec.groups.0", "rule"),
        ("alerts", "spec.groups.0.rules.0", "anotations"),
        ("pod-monitor", "spec", "podMetricEndpoints"),
        ("pod-monitor", "spec.selector", "matchLabel"),
        ("pod-monitor", "spec.podMetricsEndpoints.0", "honourLabels"),
        ("pod-monitor", "spec.podMetricsEndpoints.0.relabelings.0", "target_label"),
    ],
)
def test_a_misspelled_field_of_the_operator_is_noticed(name: str, path: str, wrong: str) -> None:
    resource = copy.deepcopy(RESOURCES[name])
    holder: Any = resource
    for key in path.split("."):
        holder = holder[int(key) if key.isdigit() else key]
    holder[wrong] = holder.popitem()[1]
    assert list_unknown_fields(resource, FIELDS[resource["kind"]]) == [f"{path}.{wrong}"]


def test_prometheus_finds_the_pods() -> None:
    spec = RESOURCES["pod-monitor"]["spec"]
    assert set(spec) == {"selector", "podMetricsEndpoints"}
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert endpoint["honorLabels"] is True, "else Prometheus renames the label job"
    labels = spec["selector"]["matchLabels"]
    assert labels == RESOURCES["network-policy"]["spec"]["podSelector"]["matchLabels"]
