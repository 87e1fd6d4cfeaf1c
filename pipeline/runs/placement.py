"""Which nodes may run the tasks or actors of a job, by custom resources and labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, parse_json

_VALUE = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"(?:[a-zA-Z0-9.-]{{1,253}}/)?{_VALUE}")
_SELECTOR = re.compile(
    rf"(?P<negated>!?)(?:in\((?P<values>{_VALUE}(?:, ?{_VALUE})*)\)|(?P<value>{_VALUE}))"
)
"""One condition on a label, as Ray writes it: `spot`, `!spot`, `in(a, b)` or `!in(a, b)`."""
_OWN_OPTIONS = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources that jobs ask for by themselves."""
_SMALLEST, _LARGEST = 0.0001, 1e9
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class Need:
    """What a task or actor needs of its node."""

    amounts: Mapping[str, float]
    """Amounts by resource, such as CPU."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Conditions by label."""

    def count_on(self, resources: Mapping[str, float], labels: Mapping[str, str]) -> int:
        """How many of these a node can hold that has these resources in total, and these labels."""
        if not self.accepts(labels):
            return 0
        counts = [
            resources.get(name, 0.0) / amount for name, amount in self.amounts.items() if amount
        ]
        return int(min(counts, default=0.0) + 1e-6)

    def accepts(self, labels: Mapping[str, str]) -> bool:
        """Whether a node's labels meet all conditions."""
        return all(_meets(labels.get(key), selector) for key, selector in self.labels.items())

    def __str__(self) -> str:
        amounts = [f"{name} {amount:g}" for name, amount in self.amounts.items()]
        return " and ".join([*amounts, *map(_describe_label, self.labels.items())])

    def find_shortage(
        self, nodes: list[tuple[Mapping[str, float], Mapping[str, str]]]
    ) -> str | None:
        """What no node has of this, in words; None if one node has all of it.

        Args:
            nodes: total resources and labels of each living node.
        """
        if any(self.count_on(*node) for node in nodes):
            return None
        count = f"of {len(nodes)} living node{'' if len(nodes) == 1 else 's'}"
        short = []
        for name, amount in self.amounts.items():
            most = max((resources.get(name, 0.0) for resources, _ in nodes), default=0.0)
            if most < amount:
                short.append(f"{name} {amount:g} ({count} none has more than {most:g})")
        for condition in self.labels.items():
            if not any(_meets(labels.get(condition[0]), condition[1]) for _, labels in nodes):
                short.append(f"{_describe_label(condition)} ({count} none has it)")
        return ", ".join(short) or f"{self} on one node"


@dataclass(frozen=True)
class Placement:
    """What a job's tasks, or its actors, need of their nodes beside cores, GPUs and memory."""

    resources: Mapping[str, float] = field(default_factory=dict)
    """Amounts of custom resources by name."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Conditions by label."""

    def build_need(self, **amounts: float) -> Need:
        """This and amounts of Ray's own resources: `build_need(CPU=1)`; an amount of 0 is none."""
        own = {name: amount for name, amount in amounts.items() if amount}
        return Need({**own, **self.resources}, self.labels)

    def build_options(self) -> dict[str, Any]:
        """Options of Ray for a task or actor; empty if every node will do."""
        options = {"resources": dict(self.resources), "label_selector": dict(self.labels)}
        return {name: value for name, value in options.items() if value}


@dataclass(frozen=True)
class PlacementOptions:
    """Where the tasks of a job may run, for jobs that start Ray for large inputs only."""

    resources: str | None = None
    """JSON with amounts of custom resources that a node must have for a task: {"cheap": 0.01}. Work in
    the job's own process has no node to choose."""
    label_selector: str | None = None
    """JSON with conditions on the labels of nodes that run tasks: {"market": "!spot"} avoids spot nodes."""

    def __post_init__(self) -> None:
        """Reject values that are not possible.

        Raises:
            InvalidConfiguration: as `parse_placement` raises it.
        """
        parse_placement(self.resources, self.label_selector)

    @property
    def placement(self) -> Placement:
        """Which nodes may run the tasks."""
        return parse_placement(self.resources, self.label_selector)


ANYWHERE = Placement()
"""Every node will do."""


def parse_placement(resources: str | None, labels: str | None, prefix: str = "") -> Placement:
    """Parse the options `--resources` and `--label-selector`.

    Args:
        resources: JSON such as `{"spot": 0.01}`; None needs nothing.
        labels: JSON such as `{"market": "!spot"}`; None takes every node.
        prefix: of the options' names in messages, such as `actor-`.

    Raises:
        InvalidConfiguration: other JSON, an amount that Ray cannot count, or an unknown condition.
    """
    return Placement(
        _parse_resources(f"--{prefix}resources", resources),
        _parse_labels(f"--{prefix}label-selector", labels),
    )


def _parse_resources(option: str, text: str | None) -> dict[str, float]:
    content = _parse_object(option, text, '{"spot": 0.01}')
    for name, amount in content.items():
        if name in _OWN_OPTIONS or not name:
            raise InvalidConfiguration(
                f"{option} asks for {name!a}, which is not a custom resource: name one that nodes were "
                "started with (ray start --resources)"
            )
        is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
        if not is_number or not 0 <= amount <= _LARGEST:
            raise InvalidConfiguration(
                f"{option} asks for {amount!a} of {name!a}, expected a number of at least 0"
            )
        if (amount > 1 and amount != int(amount)) or 0 < amount < _SMALLEST:
            raise InvalidConfiguration(
                f"{option} asks for {amount:g} of {name!a}, expected a whole number, or a share from "
                f"{_SMALLEST} to 1"
            )
    return {name: float(amount) for name, amount in content.items() if amount}


def _parse_labels(option: str, text: str | None) -> dict[str, str]:
    content = _parse_object(option, text, '{"market": "!spot"}')
    for key, selector in content.items():
        if not _KEY.fullmatch(key):
            raise InvalidConfiguration(f"{option}: {key!a:.80} is not the name of a label")
        if not isinstance(selector, str) or not _SELECTOR.fullmatch(selector):
            raise InvalidConfiguration(
                f"{option}: {selector!a:.80} is not a condition on the label {key!a}, expected one like "
                '"spot", "!spot", "in(a, b)" or "!in(a, b)"'
            )
    return content


def _parse_object(option: str, text: str | None, example: str) -> dict[str, Any]:
    if text is None:
        return {}
    expected = f"expected a JSON object such as {example}"
    try:
        content = parse_json(text)
    except InvalidJson as error:
        raise InvalidConfiguration(f"{option} is {text!a:.80}, {expected}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidConfiguration(f"{option} is {text!a:.80}, {expected}")
    return content


def _meets(label: str | None, selector: str) -> bool:
    """Whether a node's label, None if it has none, meets a condition; only `!` accepts a node without it."""
    match = _SELECTOR.fullmatch(selector)
    assert match is not None
    values = re.split(", ?", match["values"]) if match["values"] else [match["value"]]
    return (label in values) != bool(match["negated"])


def _describe_label(condition: tuple[str, str]) -> str:
    key, selector = condition
    return f"a label {key}: {selector}"
