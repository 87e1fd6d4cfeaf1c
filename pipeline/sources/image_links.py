"""Images that an annotation names by their address on the web or in a store, such as COCO's `coco_url`."""

from __future__ import annotations

from urllib.parse import unquote

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.sources.names import FileNames, check_inside

PROTOCOLS = frozenset(
    ("http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs")
)
"""What an annotation may name by itself: never a file of this machine."""


def is_link(value: str) -> bool:
    """Whether a text is the address of an image on the web or in a store."""
    return value.partition("://")[0].lower() in PROTOCOLS and "://" in value


def check_link(value: str, field: str, where: str) -> str:
    """The address of an image as a row may hold it.

    Raises:
        UnreadableDataset: it is a file of this machine, a chain of stores, or holds a password or signature,
            which the manifest would repeat.
    """
    if not is_link(value) or uris.is_chain(value):
        raise UnreadableDataset(
            f"{where}: field {field} is {uris.redact_text(value)!r:.200}, which is no address on the web or "
            "in a store; pass the folder of the images"
        )
    if uris.strip_secrets(value) != value:
        raise UnreadableDataset(
            f"{where}: field {field} is {uris.redact_uri(value)} with a password or signature, which "
            "every row of the manifest would repeat; pass a folder of the images"
        )
    return value


def find_linked(names: FileNames, link: str, where: str) -> str | None:
    """The file in a folder that an address names by the end of its path, as long as possible.

    Args:
        names: the files of the folder.
        link: an address, or a path on another machine; `%20` and the like are decoded if needed.
        where: the annotation that errors name.

    Raises:
        UnreadableDataset: the name may be any of several files.
    """
    path = link.partition("://")[2].partition("?")[0] if is_link(link) else link
    for text in dict.fromkeys((path, unquote(path))):
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        for start in range(len(parts)):
            stored = names.find("/".join(parts[start:]), where)
            if stored is not None:
                return stored
    return None


def find_named(names: FileNames, name: str, where: str) -> str | None:
    """The file in a folder that an annotation names by its path below the folder.

    Raises:
        UnreadableDataset: the path leads out of the folder, or may be any of several files.
    """
    return names.find(name, where) or names.find(check_inside(name, where), where)
