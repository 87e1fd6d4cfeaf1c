"""Turns the errors of stores into errors that name the URI and show no secret."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping

from pipeline import store_options, uris
from pipeline.errors import AccessDenied, MissingObject, StorageError
from pipeline.secret_mask import SecretMask

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
_NO_SUCH_FILE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def _classify(error: Exception) -> type[StorageError]:
    """The error type for an exception that is not one of Python's own but of a store's client.

    A web server's status counts: nearly all of 400 to 499 concern the object, not the server.
    """
    status = getattr(error, "status", None)
    if status in (401, 402, 403, 407, 451):
        return AccessDenied
    is_missing = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
    # botocore's error for an impossible bucket name
    is_missing = is_missing or type(error).__name__ == "ParamValidationError"
    return MissingObject if is_missing else StorageError


@contextlib.contextmanager
def translate_errors(uri: str, action: str, *, in_block: bool = False) -> Iterator[None]:
    """Turn a store's own errors into ones that name the URI and, without secrets, the reason.

    Args:
        uri: the object or folder that the block works on.
        action: what the block does with it, as a participle for `cannot be <action>`.
        in_block: the block also runs other code, so errors that no store raises pass unchanged.

    Raises:
        MissingObject: the object does not exist, or cannot exist.
        AccessDenied: the credentials do not allow the action.
        StorageError: any other error of the store.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        if action != "written":
            raise MissingObject(f"{uris.redact_uri(uri)} does not exist") from error
        bucket = uris.redact_uri(uri).partition("://")[2].partition("/")[0]
        reason = f"no bucket {bucket}" if bucket else describe_error(error)
        raise MissingObject(f"{uris.redact_uri(uri)} cannot be written: {reason}") from error
    except PermissionError as error:
        raise AccessDenied(f"{uris.redact_uri(uri)} cannot be {action}: access denied") from error
    except ImportError as error:
        extra = _EXTRAS.get(uris.get_protocol(uri))
        hint = f"run pip install '.[{extra}]' in the clone" if extra else str(error)
        raise StorageError(f"{uris.redact_uri(uri)} cannot be {action}: {hint}") from error
    except (OSError, TimeoutError) as error:
        error_type = MissingObject if error.errno in _NO_SUCH_FILE else StorageError
        raise error_type(
            f"{uris.redact_uri(uri)} cannot be {action}: {describe_error(error)}"
        ) from error
    except Exception as error:
        # A client raises TypeError for an option that it does not have.
        if isinstance(error, TypeError) and store_options.get_options().find_options(uri):
            raise StorageError(
                f"{uris.redact_uri(uri)}: storage options: {describe_error(error)}"
            ) from error
        clients = ("botocore", "aiobotocore", "google", "gcsfs", "azure", "aiohttp")
        if in_block and not type(error).__module__.startswith(clients):
            raise
        error_type = _classify(error)
        raise error_type(
            f"{uris.redact_uri(uri)} cannot be {action}: {describe_error(error)}"
        ) from error


def is_range_error(error: Exception) -> bool:
    """Whether a store rejects the range of a request rather than its object: HTTP status 416."""
    codes = {getattr(error, "status", None), getattr(error, "code", None)}
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        codes.add(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    is_named = "range" in str(error).lower() and "satisf" in str(error).lower()
    return 416 in codes or is_named


def describe_error(error: Exception) -> str:
    """The first line of an error's text, without secrets."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return SecretMask().hide(text.splitlines()[0])
