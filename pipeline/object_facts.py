"""What a store says of an object without sending it: its size, and the MD5 of its bytes if it keeps one."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import storage
from pipeline.storage_errors import translate_errors

_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class ObjectFacts:
    """What a store says of an object."""

    size: int | None
    """Bytes; None if the store does not say."""
    md5: str | None
    """What may be the MD5 of the object, as hexadecimal digits; None if there is no such text.

    The ETag of S3 is the MD5 of an object that was uploaded whole and is not encrypted with a key of KMS. Of
    others it is another number of the same length, or longer. So an equal MD5 proves equal bytes, while
    another one proves nothing.
    """


def read_object_facts(uri: str) -> ObjectFacts:
    """Ask the store of an object for its size and MD5: one request, or a look at the file on a local disk.

    Raises:
        MissingObject: the object does not exist.
        AccessDenied: the credentials do not allow it.
        StorageError: the store cannot be reached.
    """
    store, path = storage.get_filesystem(uri)
    with translate_errors(uri, "looked up"):
        store.invalidate_cache()
        info = store.info(path)
    size = info.get("size")
    return ObjectFacts(size if isinstance(size, int) else None, _find_md5(info))


def _find_md5(info: Mapping[str, Any]) -> str | None:
    etag = str(info.get("ETag") or "").strip('"').lower()
    if _MD5.fullmatch(etag):
        return etag
    try:  # Google Cloud Storage
        return base64.b64decode(str(info.get("md5Hash") or ""), validate=True).hex() or None
    except binascii.Error:
        return None
