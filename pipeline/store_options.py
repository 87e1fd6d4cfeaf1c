"""Options of stores (endpoint, keys, anonymity) by URI prefix, for a run whose stores differ.

They are told to a process with `use`, travel to workers inside the run's plan, and are written nowhere:
`repr` shows prefixes only, and what a store says has its secrets blotted out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import InvalidConfiguration

_PUBLIC = ("endpoint_url", "region_name", "account_name", "project", "addressing_style")
"""Options that may stand in a message."""
_SHORTEST_SECRET = 6


class StoreOptions:
    """fsspec options for all URIs below each of some prefixes."""

    def __init__(self, by_prefix: Mapping[str, Mapping[str, Any]]) -> None:
        self._by_prefix = {prefix.rstrip("/"): dict(told) for prefix, told in by_prefix.items()}

    def __repr__(self) -> str:
        return f"StoreOptions({', '.join(sorted(self._by_prefix))})"

    def of(self, uri: str) -> dict[str, Any]:
        """The options of the longest prefix that the URI lies at or below; none where no prefix fits.

        A prefix is a protocol (`s3:`), a bucket or a folder in it; it ends where a name ends.
        """
        fitting = [
            prefix
            for prefix in self._by_prefix
            if uri == prefix or uri.startswith((prefix + "/", prefix + "?"))
        ]
        return dict(self._by_prefix[max(fitting, key=len)]) if fitting else {}

    def secrets(self) -> set[str]:
        """All texts among the options that could be a key, at any depth."""
        return {
            text
            for told in self._by_prefix.values()
            for text in _texts(told)
            if len(text) >= _SHORTEST_SECRET
        }

    def blotted(self, text: str) -> str:
        """The text with `***` in the place of each secret."""
        for secret in sorted(self.secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, name)
    elif isinstance(value, str) and name not in _PUBLIC:
        yield value


_used = StoreOptions({})


def use(options: StoreOptions) -> None:
    """Take these options for every store that this process opens from now on."""
    global _used  # noqa: PLW0603  one process has one set, as with fsspec's own configuration
    _used = options


def used() -> StoreOptions:
    """The options that this process uses."""
    return _used


def parse(data: bytes, source: str) -> StoreOptions:
    """Options from JSON such as `{"s3://bucket": {"anon": true, "endpoint_url": "https://..."}}`.

    Args:
        data: the JSON.
        source: where it came from, for messages; they never show what is in it.

    Raises:
        InvalidConfiguration: it is no such JSON.
    """
    try:
        told = json.loads(data)
    except ValueError:
        raise InvalidConfiguration(f"{source} is not JSON") from None
    expected = 'expected {"s3://bucket": {"option": value, ...}, ...}'
    if not isinstance(told, dict):
        raise InvalidConfiguration(f"{source} holds no options by URI prefix, {expected}")
    for prefix, options in told.items():
        if ":" not in prefix or "@" in prefix:
            raise InvalidConfiguration(f"{source}: a key is no URI prefix, {expected}")
        if not isinstance(options, dict):
            raise InvalidConfiguration(f"{source}: {prefix} has no options, {expected}")
    return StoreOptions(told)
