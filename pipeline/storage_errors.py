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


def shown(uri: str) -> str:
    """The URI without user, password and query, as messages and files may show it."""
    # A secret key may hold slashes, so what follows `user:` is cut up to the last @.
    uri = re.sub(r"(://)([^/@\s]*@|[^/@\s]*:[^\s]*@)", r"\1", uri)
    return re.sub(r"(://[^\s?]*)\?[^\s\"]*", r"\1", uri)


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
