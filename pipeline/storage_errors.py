"""What stores say when something goes wrong, as errors that name the URI and hold no secret."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from pipeline import store_options
from pipeline.errors import StorageError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
_NO_SUCH_FILE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class MissingObject(StorageError):
    """Nothing lies at the URI, or nothing can: a retry does not mend it."""


class AccessDenied(StorageError):
    """The store answers, but not to these credentials."""


def _kind(error: Exception) -> type[StorageError]:
    """What a store's client of another kind than Python's own errors speaks of.

    A web server's status comes along: all but a few of 400 to 499 are of the object, not of the server.
    """
    status = getattr(error, "status", None)
    if status in (401, 402, 403, 407, 451):
        return AccessDenied
    wrong = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
    # botocore's, for a bucket's name that cannot be
    return (
        MissingObject if wrong or type(error).__name__ == "ParamValidationError" else StorageError
    )


_BEFORE_HOST = r"[^/@\s:]*:(?!:)[^\s]*@"
"""What stands before a host. A secret key may hold slashes, so what follows `user:` goes on to the last @;
two colons chain file systems."""
_USER = re.compile(rf"([\w+.-]*)(://)([^/@\s]*@|{_BEFORE_HOST})")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols that have container@account there."""
_SECRET = re.compile(
    r"[?&]([^=&]*(auth|token|key|sig|secret|pass|pwd|hmac|cred|hdnea)[^=&]*=|[^=&]*=[^&]{25})",
    re.IGNORECASE,
)
"""A parameter whose name or length says that it is no mere number of an image."""


def shown(uri: str) -> str:
    """The URI without user, password and query, as messages and files may show it."""
    uri = _USER.sub(_without_user, uri)
    return uri.partition("?")[0] if "://" in uri else uri


def cleared(text: str) -> str:
    """A text without users, passwords and queries of the URIs in it."""
    return re.sub(r"(://[^\s?]*)\?[^\s\"]*", r"\1", _USER.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    kind, separator, user = found.groups()
    return found[0] if kind in _CONTAINERS and ":" not in user else kind + separator


def public(uri: str) -> str:
    """A URI as an image's row holds it: whole, but without a password or what signs a link."""
    if "http" in uri:
        uri = re.sub(r"(https?://)[^/@\s]*@", r"\1", uri)
    else:
        uri = re.sub(rf"(://){_BEFORE_HOST}", r"\1", uri)
    return uri.partition("?")[0] if "://" in uri and _SECRET.search(uri) else uri


def protocol(uri: str) -> str:
    """The URI's protocol, `file` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


@contextlib.contextmanager
def naming(uri: str, action: str, *, in_block: bool = False) -> Iterator[None]:
    """Turn a store's own errors into ones that name the URI and, without secrets, the reason.

    Args:
        uri: what it is about.
        action: what cannot be done with it, as a participle.
        in_block: the block does other things as well: what no store raises passes.

    Raises:
        MissingObject: nothing lies there, or nothing can.
        AccessDenied: the credentials do not reach it.
        StorageError: any other error of the store's.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if action != "written":
            raise MissingObject(f"{shown(uri)} does not exist") from error
        bucket = shown(uri).partition("://")[2].partition("/")[0]
        why = f"no bucket {bucket}" if bucket else reason(error)
        raise MissingObject(f"{shown(uri)} cannot be written: {why}") from error
    except PermissionError as error:
        raise AccessDenied(f"{shown(uri)} cannot be {action}: access denied") from error
    except ImportError as error:
        extra = _EXTRAS.get(protocol(uri))
        hint = f"pip install 'fast-rcnn-pipeline[{extra}]'" if extra else str(error)
        raise StorageError(f"{shown(uri)} cannot be {action}: {hint}") from error
    except (OSError, TimeoutError) as error:
        kind = MissingObject if error.errno in _NO_SUCH_FILE else StorageError
        raise kind(f"{shown(uri)} cannot be {action}: {reason(error)}") from error
    except Exception as error:
        if isinstance(error, TypeError) and store_options.used().of(uri):  # one it does not know
            raise StorageError(f"{shown(uri)}: storage options: {reason(error)}") from error
        known = ("botocore", "aiobotocore", "google", "gcsfs", "azure", "aiohttp")
        if in_block and not type(error).__module__.startswith(known):
            raise
        kind = _kind(error)
        raise kind(f"{shown(uri)} cannot be {action}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an error's text, without secrets."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return store_options.used().blotted(cleared(text.splitlines()[0]))
