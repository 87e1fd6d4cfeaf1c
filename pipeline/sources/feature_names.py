"""Class names in the metadata that the package `datasets` writes into Parquet files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json

_KEY = b"huggingface"


def read_class_names(
    file_schema: pa.Schema, column: str, field: str, where: str
) -> tuple[str, ...] | None:
    """The names of a class label, by its number; None if the file does not say.

    Args:
        file_schema: of the Parquet file, with its metadata.
        column: the column of the objects.
        field: the field of the label in it.
        where: the file that errors name.

    Raises:
        UnreadableDataset: the metadata is not JSON, or names a class twice.
    """
    raw = (file_schema.metadata or {}).get(_KEY)
    if raw is None:
        return None
    try:
        content = parse_json(raw)
    except InvalidJson as error:
        raise UnreadableDataset(
            f"{where}: the metadata 'huggingface' is not well-formed JSON: {error}"
        ) from error
    features = _find(_find(content, "info"), "features")
    label = _search(_find(features, column), field)
    names = _search(label, "names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    if len(set(names)) < len(names):
        raise UnreadableDataset(f"{where}: the metadata lists a class twice: {names!r:.200}")
    return tuple(names)


def _find(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _search(content: Any, name: str) -> Any:
    """The value of the outermost field of this name: lists and sequences wrap features in each version."""
    if isinstance(content, dict):
        if name in content:
            return content[name]
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            inner = _search(value, name)
            if inner is not None:
                return inner
    return None
