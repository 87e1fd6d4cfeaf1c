"""What a URI is: its protocol, its parts, and how much of it messages and files may show."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

_BEFORE_HOST = r"[^/@\s:]*:(?!:)[^\s]*@"
"""User and password in front of a host. A secret key may hold slashes, so the text after `user:` extends to
the last @; two colons chain file systems."""
_USER = re.compile(rf"([\w+.-]*)(://)([^/@\s]*@|{_BEFORE_HOST})")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols that have container@account in this place."""
_SECRET = re.compile(
    r"[?&]([^=&]*(auth|token|key|sig|secret|pass|pwd|hmac|cred|hdnea)[^=&]*=|[^=&]*=[^&]{25})",
    re.IGNORECASE,
)
"""A query parameter whose name or length suggests a secret rather than the number of an image."""


def get_protocol(uri: str) -> str:
    """The URI's protocol, `file` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def make_absolute(uri: str) -> str:
    """The URI, or an absolute path for a relative one."""
    if get_protocol(uri) == "file":
        return str(Path(uri.removeprefix("file://")).expanduser().absolute())
    return _strip_slash(uri)


def join(uri: str, *names: str) -> str:
    """The URI of something below `uri`."""
    return posixpath.join(_strip_slash(uri), *names)


def _strip_slash(uri: str) -> str:
    """The URI without slashes at its end, but `/` and `memory://` stay whole."""
    kind, separator, path = uri.rpartition("://")
    return kind + separator + (path.rstrip("/") or path[:1])


def redact_uri(uri: str) -> str:
    """The URI without user, password and query, as messages and files may show it."""
    uri = _USER.sub(_remove_user, uri)
    return uri.partition("?")[0] if "://" in uri else uri


def redact_text(text: str) -> str:
    """A text without the users, passwords and queries of the URIs in it."""
    return re.sub(r"(://[^\s?]*)\?[^\s\"]*", r"\1", _USER.sub(_remove_user, text))


def _remove_user(match: re.Match[str]) -> str:
    kind, separator, user = match.groups()
    return match[0] if kind in _CONTAINERS and ":" not in user else kind + separator


def strip_secrets(uri: str) -> str:
    """An image's URI as its row holds it: whole, but without a password or the signature of a link."""
    if "http" in uri:
        uri = re.sub(r"(https?://)[^/@\s]*@", r"\1", uri)
    else:
        uri = re.sub(rf"(://){_BEFORE_HOST}", r"\1", uri)
    return uri.partition("?")[0] if "://" in uri and _SECRET.search(uri) else uri
