"""Hides secrets in what jobs log, print and store: of store options, the environment and URIs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import fsspec

from pipeline import store_options, uris

_SECRET_NAME = re.compile(
    r"auth|token|key|secret|pass|pwd|cred|sas|signature|connection_string", re.IGNORECASE
)
"""Names of environment variables and fsspec options whose values are hidden."""
_PUBLIC_NAMES = ("PWD", "OLDPWD")
_SHORTEST = 6
"""Characters of a secret: shorter values are words such as `token` or `none`."""
_SHORTEST_LINE = 12
"""Characters of a line of a secret of several lines, such as a private key."""
_PASSWORD = re.compile(r"://[^/@\s:]*:([^\s]+)@")
"""In front of a host; a secret key may hold slashes, so it extends to the last @."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
MASK = "***"


class SecretMask:
    """Replaces the secrets that this process knows, in texts of any origin."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Collect the secrets.

        Args:
            environment: the environment variables; None takes those of this process.
        """
        variables = os.environ if environment is None else environment
        plain = {
            *store_options.get_options().list_secrets(),
            *_iterate_secrets(variables),
            *_iterate_secrets(fsspec.config.conf),
        }
        spellings = {form for secret in plain for form in _list_spellings(secret)}
        longest_first = sorted(spellings, key=lambda text: (-len(text), text))
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if spellings else None

    def hide(self, text: str) -> str:
        """The text without secrets, colours of a terminal, and users and queries of URIs."""
        text = _ANSI.sub("", text)
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return uris.redact_text(text)


def _iterate_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    """Values under names that suggest a secret, passwords of URLs, and those in JSON (`FSSPEC_S3`)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _iterate_secrets(value)
        elif isinstance(value, str):
            if _SECRET_NAME.search(name) and _may_be_secret(name, value):
                yield value
            yield from _list_passwords(value)
            if value.lstrip().startswith("{"):
                yield from _iterate_json(value)


def _may_be_secret(name: str, value: str) -> bool:
    """Whether a value under a telling name is no word, nor the place of a folder, socket or file of keys."""
    is_place = value.startswith("/") and "\0" not in value and os.path.lexists(value)
    return len(value) >= _SHORTEST and name not in _PUBLIC_NAMES and not is_place


def _list_passwords(value: str) -> Iterator[str]:
    """The password of a URL such as `http://user:password@proxy:3128`, as it is written and decoded."""
    for password in _PASSWORD.findall(value):
        yield from (text for text in (password, unquote(password)) if len(text) >= _SHORTEST)


def _iterate_json(text: str) -> Iterator[str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(content, dict):
        yield from _iterate_secrets(content)


def _list_spellings(secret: str) -> Iterator[str]:
    """A secret as texts may show it: as it is, in a URL, in JSON or Python, and line by line."""
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    lines = secret.splitlines()
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _SHORTEST_LINE)
