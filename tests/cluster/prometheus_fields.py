"""The fields of the Prometheus Operator's kinds, by its API (monitoring.coreos.com/v1, release 0.91).

Kubernetes drops fields that it does not know without an error, so a misspelled one would have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Fields: TypeAlias = Mapping[str, "Fields | None"]
"""The fields of an object, or of each object in a list, with their own fields; None takes any value."""


def _list_names(*names: str) -> dict[str, Fields | None]:
    return dict.fromkeys(names)


_SELECTOR = _list_names("matchLabels", "matchExpressions")
_RELABELING = _list_names(
    *("action", "modulus", "regex", "replacement", "separator", "sourceLabels", "targetLabel")
)
_ENDPOINT = {
    **_list_names("port", "portNumber", "targetPort", "path", "scheme", "params", "interval"),
    **_list_names("scrapeTimeout", "honorLabels", "honorTimestamps", "trackTimestampsStaleness"),
    **_list_names("authorization", "basicAuth", "bearerTokenSecret", "oauth2", "tlsConfig"),
    **_list_names("followRedirects", "enableHttp2", "filterRunning"),
    **_list_names("noProxy", "proxyConnectHeader", "proxyFromEnvironment", "proxyUrl"),
    "relabelings": _RELABELING,
    "metricRelabelings": _RELABELING,
}
_MONITOR = {
    **_list_names("jobLabel", "podTargetLabels", "scrapeClass", "scrapeProtocols"),
    **_list_names("fallbackScrapeProtocol", "bodySizeLimit", "sampleLimit", "targetLimit"),
    **_list_names(
        "labelLimit", "labelNameLengthLimit", "labelValueLengthLimit", "keepDroppedTargets"
    ),
    **_list_names(
        "convertClassicHistogramsToNHCB", "scrapeClassicHistograms", "scrapeNativeHistograms"
    ),
    **_list_names("nativeHistogramBucketLimit", "nativeHistogramMinBucketFactor"),
    "attachMetadata": _list_names("node"),
    "namespaceSelector": _list_names("any", "matchNames"),
    "selector": _SELECTOR,
    "podMetricsEndpoints": _ENDPOINT,
}
_RULE = _list_names("record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations")
_GROUP = {
    **_list_names(
        "name", "interval", "query_offset", "limit", "labels", "partial_response_strategy"
    ),
    "rules": _RULE,
}


def _describe_kind(spec: Fields) -> Fields:
    metadata = _list_names("name", "namespace", "labels", "annotations")
    return {**_list_names("apiVersion", "kind"), "metadata": metadata, "spec": spec}


FIELDS: Mapping[str, Fields] = {
    "PodMonitor": _describe_kind(_MONITOR),
    "PrometheusRule": _describe_kind({"groups": _GROUP}),
}
"""The fields of each kind."""


def list_unknown_fields(value: Any, fields: Fields, place: str = "") -> list[str]:
    """Where a resource has fields that its kind does not, such as `spec.groups.0.rule`."""
    if isinstance(value, list):
        inner = [(f"{place}{index}", item, fields) for index, item in enumerate(value)]
        return [name for at, item, of in inner for name in list_unknown_fields(item, of, f"{at}.")]
    unknown = []
    for key, item in value.items():
        if key not in fields:
            unknown.append(f"{place}{key}")
        elif (own := fields[key]) is not None:
            unknown += list_unknown_fields(item, own, f"{place}{key}.")
    return unknown
