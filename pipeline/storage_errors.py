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


_ANSWERS: dict[int | None, type[StorageError]] = {
    # Of a web server, whose client passes its status on; those of other stores speak Python's errors.
    401: AccessDenied,
    403: AccessDenied,
    404: MissingObject,
    410: MissingObject,
    451: AccessDenied,
}


_BEFORE_HOST = r"[^/@\s:]*:(?!:)[^\s]*@"
"""What stands before a host. A secret key may hold slashes, so what follows `user:` goes on to the last @;
two colons chain file systems."""
_USER = re.compile(rf"([\w+.-]*)(://)([^/@\s]*@|{_BEFORE_HOST})")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Protocols that have container@account there."""
_SIGNED = re.compile(
    r"[?&](x-(amz|goog|ms|oss|cos)-[^=]*|signature|sig|awsaccesskeyid|googleaccessid|"
    r"([a-z]+_?)?(token|key|secret|password))=",
    re.IGNORECASE,
)


def shown(text: str) -> str:
    """A URI, or a text with URIs in it, without users, passwords and queries: for messages."""
    text = _USER.sub(_without_user, text)
    return re.sub(r"(://[^\s?]*)\?[^\s\"]*", r"\1", text)


def _without_user(found: re.Match[str]) -> str:
    kind, separator, user = found.groups()
    return found[0] if kind in _CONTAINERS and ":" not in user else kind + separator


def public(uri: str) -> str:
    """A URI as a picture's row holds it: whole, but without a password or what signs a web link."""
    if "http" not in protocol(uri):
        return re.sub(rf"(://){_BEFORE_HOST}", r"\1", uri)
    uri = re.sub(r"(://)[^/@\s]*@", r"\1", uri)
    return uri.partition("?")[0] if _SIGNED.search(uri) else uri


def protocol(uri: str) -> str:
    """The URI's protocol, `file` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


@contextlib.contextmanager
def naming(uri: str, action: str) -> Iterator[None]:
    """Turn a store's own errors into ones that name the URI and, without secrets, the reason.

    Raises:
        MissingObject: nothing lies there, or nothing can.
        AccessDenied: the credentials do not reach it.
        StorageError: any other error of the store's; errors of other kinds pass.
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
        if not type(error).__module__.startswith(
            ("botocore", "aiobotocore", "google", "gcsfs", "azure", "aiohttp")
        ):
            raise
        kind = _ANSWERS.get(getattr(error, "status", None), StorageError)
        raise kind(f"{shown(uri)} cannot be {action}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an error's text, without secrets."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return store_options.used().blotted(shown(text.splitlines()[0]))
