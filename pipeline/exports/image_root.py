"""The folder that all images of a manifest are in: formats name an image by its path below it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import uris


def find_image_root(batches: Iterable[pa.Array], root: str | None = None) -> str | None:
    """The deepest folder that holds all images, or None if they have none in common.

    Args:
        batches: the images' URIs, without passwords and signatures.
        root: the folder of the images before these.
    """
    for batch in batches:
        if len(batch):
            ends = pc.min_max(batch).as_py()
            common = _find_common_start(ends["min"], ends["max"])
            common = common if root is None else _find_common_start(common, root)
            root = common if common == root else common.rpartition("/")[0] + "/"
    return None if root is None or _is_bare(root) else root


def _find_common_start(first: str, second: str) -> str:
    pairs = zip(first, second, strict=False)
    differing = (index for index, (a, b) in enumerate(pairs) if a != b)
    return first[: next(differing, min(len(first), len(second)))]


def _is_bare(root: str) -> bool:
    """Whether a common start holds no folder: `/`, `s3://` or nothing."""
    return root == "/" or root.partition("://")[2 if "://" in root else 0] == ""


def get_relative_path(uri: str, root: str | None) -> str | None:
    """An image's path below the root; None without a root."""
    return None if root is None or not uri.startswith(root) else uri[len(root) :]


def strip_secrets(column: pa.Array) -> pa.Array:
    """The URIs as rows show them; almost all are paths or plain URIs, which stay as they are."""
    has_more = pc.match_substring_regex(column, r"[?@]")
    if not pc.any(has_more).as_py():
        return column
    return pa.array(list(map(uris.strip_secrets, column.to_pylist())), pa.string())
