"""Validate a custom resource as the API server does: fields, types and the definition's own rules.

The API server drops fields that a definition does not have, so that a misspelled `backofLimit` is accepted
and does nothing. Here an unknown field is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import yaml


class InvalidResource(Exception):
    """The resource does not fit its definition."""


class ResourceDefinition:
    """The schema of one kind and version from a CustomResourceDefinition."""

    def __init__(self, path: Path, version: str = "v1") -> None:
        definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        versions = {entry["name"]: entry for entry in definition["spec"]["versions"]}
        self.schema = versions[version]["schema"]["openAPIV3Schema"]
        self.kind = definition["spec"]["names"]["kind"]
        self._validator = jsonschema.Draft202012Validator(_close(self.schema, is_root=True))

    def validate(self, resource: dict[str, Any]) -> int:
        """Check a resource; returns how many of the definition's rules were evaluated.

        Raises:
            InvalidResource: an unknown or missing field, a wrong type, or a broken rule.
        """
        for error in self._validator.iter_errors(resource):
            raise InvalidResource(f"{error.json_path}: {error.message}")
        checked = 0
        for value, rule, place in _iterate_rules(self.schema, resource, self.kind):
            if not _evaluate(rule["rule"], value):
                raise InvalidResource(f"{place}: {rule.get('message', rule['rule'])}")
            checked += 1
        return checked


def _close(schema: dict[str, Any], *, is_root: bool = False) -> dict[str, Any]:
    """A structural schema as JSON Schema that rejects unknown fields."""
    closed = {
        key: value
        for key, value in schema.items()
        if not key.startswith("x-kubernetes") and key not in ("nullable", "default", "format")
    }
    if "properties" in schema:
        closed["properties"] = {name: _close(item) for name, item in schema["properties"].items()}
        is_open = (
            schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        )
        if is_root:
            closed["properties"]["metadata"] = {"type": "object"}
        if not is_open:
            closed["additionalProperties"] = False
    if isinstance(schema.get("items"), dict):
        closed["items"] = _close(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        closed["additionalProperties"] = _close(schema["additionalProperties"])
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    return closed


def _iterate_rules(
    schema: dict[str, Any], value: Any, place: str
) -> Iterator[tuple[Any, dict[str, str], str]]:
    """The rules that apply to a new resource; those about a change compare with `oldSelf`."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            yield value, rule, place
    if isinstance(value, dict):
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(inner, dict):
                yield from _iterate_rules(inner, item, f"{place}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _iterate_rules(schema["items"], item, f"{place}[{index}]")


def _evaluate(rule: str, value: Any) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(rule))
    return bool(program.evaluate({"self": celpy.json_to_cel(value)}))
