"""What a URI is: its protocol, its parts, and how much of it messages and files may show."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

_BEFORE_HOST = r"[^/@\s:]*:(?!:)[^\s]*@"
"""User and password in front of a host. A secret key may hold slashes, so the text after `user:` extends to
the last @; two colons chain file systems."""
_USER = re.compile(rf"(?<![\w+.-])([\w+.-]*)(://)([^/@\s]*@|{_BEFORE_HOST})")
_CHAINING = frozenset(
    (
        "zip",
        "tar",
        "libarchive",
        "dir",
        "reference",
        "cached",
        "simplecache",
        "filecache",
        "blockcache",
    )
)
"""Protocols that read from another file system."""
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols that have container@account in this place."""
_SECRET_NAME = re.compile("auth|token|key|sig|secret|pass|pwd|hmac|cred|hdnea", re.IGNORECASE)
_SHORTEST_SECRET = 25
"""Characters of a query parameter that suggest a secret, whatever the parameter is called."""


def get_protocol(uri: str) -> str:
    """The URI's protocol, `file` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def make_absolute(uri: str) -> str:
    """The URI, or an absolute path for a relative one."""
    if get_protocol(uri) == "file":
        path = Path(uri.removeprefix("file://"))
        with contextlib.suppress(
            RuntimeError
        ):  # of an unknown user: a file's name may begin with ~
            path = path.expanduser()
        return str(path.absolute())
    return _strip_slash(uri)


def is_chain(uri: str) -> bool:
    """Whether a URI with `::` chains file systems, such as `zip://a.jpg::s3://bucket/a.zip`.

    Otherwise the colons belong to a file's name.
    """
    outer, separator, _ = uri.partition("::")
    return bool(separator) and outer.partition("://")[0] in _CHAINING


def join(uri: str, *names: str) -> str:
    """The URI of something below `uri`."""
    return posixpath.join(_strip_slash(uri), *names)


def _strip_slash(uri: str) -> str:
    """The URI without slashes at its end, but `/` and `memory://` stay whole."""
    kind, separator, path = uri.rpartition("://")
    return kind + separator + (path.rstrip("/") or path[:1])


def redact_uri(uri: str) -> str:
    """The URI without user, password and a web address's query, as messages and files may show it.

    On other stores `?` belongs to an object's name, unless a secret follows.
    """
    uri = _remove_users(uri)
    location, _, query = uri.partition("?")
    kind, separator, _ = location.partition("://")
    is_query = separator and ("http" in kind or _has_secret(f"?{query}"))
    return location if is_query else uri


def redact_text(text: str) -> str:
    """A text without the users, passwords and queries of the URIs in it."""
    return _map_words(_remove_queries, _remove_users(text))


def _map_words(change: Callable[[str], str], text: str) -> str:
    """The text with each run of characters without blanks changed.

    The changes below take time linear in the length of a word, however often it repeats a separator.
    """
    return "".join(change(word) for word in re.split(r"(\s+)", text))


def _remove_queries(word: str) -> str:
    """Drop what `redact_uri` drops."""
    shortened, begun = "", 0
    start = word.find("://")
    while start >= 0 and (mark := word.find("?", start)) >= 0:
        end = word.find('"', mark)
        end = len(word) if end < 0 else end
        is_web = word[begun:start].endswith(("http", "https"))
        is_dropped = is_web or _has_secret(word[mark:end])
        shortened += word[begun : mark if is_dropped else end]
        begun, start = end, word.find("://", end)
    return shortened + word[begun:]


def _has_secret(query: str) -> bool:
    """Whether a parameter's name or length suggests a secret rather than the number of an image."""
    for parameter in re.split("[?&]", query)[1:]:
        name, separator, value = parameter.partition("=")
        is_long = len(value) >= _SHORTEST_SECRET
        if separator and (is_long or _SECRET_NAME.search(name)):
            return True
    return False


def _remove_users(text: str) -> str:
    return _map_words(_remove_users_of_word, text)


def _remove_users_of_word(word: str) -> str:
    before, separator, after = word.rpartition("@")
    return _USER.sub(_remove_user, before + separator) + after if separator else word


def _remove_user(match: re.Match[str]) -> str:
    kind, separator, user = match.groups()
    return match[0] if kind in _CONTAINERS and ":" not in user else kind + separator


def strip_secrets(uri: str) -> str:
    """An image's URI as its row holds it: whole, but without a password or the signature of a link."""
    if "http" in uri:
        uri = re.sub(r"(https?://)[^/@\s]*@", r"\1", uri)
    else:
        before, separator, after = uri.rpartition("@")
        uri = re.sub(rf"(://){_BEFORE_HOST}", r"\1", before + separator) + after
    return uri.partition("?")[0] if "://" in uri and _has_secret(uri) else uri
