"""Options of stores (endpoint, keys, anonymity) by URI prefix, for a run whose stores differ.

A process takes them with `set_options`, and workers receive them inside the run's plan. No file holds them:
`repr` shows prefixes only, and messages of stores show `***` in place of secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, parse_json

_PUBLIC = ("endpoint_url", "region_name", "account_name", "project", "addressing_style")
"""Options that messages may show."""
_SHORTEST_SECRET = 6


class StoreOptions:
    """fsspec options for all URIs below each of several prefixes."""

    def __init__(self, by_prefix: Mapping[str, Mapping[str, Any]]) -> None:
        self._by_prefix = {prefix.rstrip("/"): dict(named) for prefix, named in by_prefix.items()}

    def __repr__(self) -> str:
        return f"StoreOptions({', '.join(sorted(self._by_prefix))})"

    def find_options(self, uri: str) -> dict[str, Any]:
        """The options of the longest prefix that the URI is at or below; none if no prefix fits.

        A prefix is a protocol (`s3:`), a bucket or a folder in it; it ends where a name ends.
        """
        fitting = [
            prefix
            for prefix in self._by_prefix
            if uri == prefix or uri.startswith((prefix + "/", prefix + "?"))
        ]
        return dict(self._by_prefix[max(fitting, key=len)]) if fitting else {}

    def list_secrets(self) -> set[str]:
        """All texts in the options that could be a key, at any depth."""
        return {
            text
            for options in self._by_prefix.values()
            for text in _iterate_texts(options)
            if len(text) >= _SHORTEST_SECRET
        }


def _iterate_texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _iterate_texts(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _iterate_texts(inner, name)
    elif isinstance(value, str) and name not in _PUBLIC:
        yield value


_process_options = StoreOptions({})


def set_options(options: StoreOptions) -> None:
    """Use these options for every store that this process opens from now on."""
    global _process_options  # noqa: PLW0603  one process has one set, as with fsspec's own configuration
    _process_options = options


def get_options() -> StoreOptions:
    """The options that this process uses."""
    return _process_options


def parse_options(data: bytes, source: str) -> StoreOptions:
    """Parse options from JSON such as `{"s3://bucket": {"anon": true, "endpoint_url": "https://..."}}`.

    Args:
        data: the JSON.
        source: the name of its file, for messages; they never show the content.

    Raises:
        InvalidConfiguration: the data is not JSON of this form.
    """
    try:
        by_prefix = parse_json(data)
    except InvalidJson:  # its message may show a secret
        raise InvalidConfiguration(f"{source} is not JSON") from None
    expected = 'expected {"s3://bucket": {"option": value, ...}, ...}'
    if not isinstance(by_prefix, dict):
        raise InvalidConfiguration(f"{source} holds no options by URI prefix, {expected}")
    for prefix, options in by_prefix.items():
        if ":" not in prefix or "@" in prefix:
            raise InvalidConfiguration(f"{source}: a key is not a URI prefix, {expected}")
        if not isinstance(options, dict):
            raise InvalidConfiguration(f"{source}: {prefix} has no options, {expected}")
    return StoreOptions(by_prefix)
