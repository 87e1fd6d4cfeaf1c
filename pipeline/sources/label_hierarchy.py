"""The hierarchy of Open Images' classes: which classes an object of one class belongs to as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json
from pipeline.manifests import AnnotatedObject

_LARGEST = 64 << 20
"""Bytes; the hierarchy of 600 classes has 90 kB."""


def read_ancestors(hierarchy: str) -> Mapping[str, tuple[str, ...]]:
    """The classes above each class, by label name, sorted; the root, which is no class, is left out.

    A class may be below several others. `Part` is not read: a wheel is part of a car, and no car. So does
    Open Images' own `oid_hierarchical_labels_expansion.py`, which its evaluation requires.

    Args:
        hierarchy: a JSON file such as bbox_labels_600_hierarchy.json: objects of `LabelName` and a list
            `Subcategory` of such objects, in any store.

    Raises:
        UnreadableDataset: it is not such a file.
        StorageError: it cannot be read.
    """
    uri = uris.make_absolute(hierarchy)
    where = uris.redact_uri(uri)
    try:
        root = parse_json(storage.read(uri, _LARGEST))
    except InvalidJson as error:
        raise UnreadableDataset(f"{where} is not well-formed JSON: {error}") from error
    if not isinstance(root, dict) or not root.get("Subcategory"):
        raise UnreadableDataset(
            f"{where} is no hierarchy of classes: expected an object with LabelName and Subcategory"
        )
    ancestors: dict[str, set[str]] = {}
    pending: list[tuple[Any, tuple[str, ...]]] = [
        (node, ()) for node in _list_children(root, where)
    ]
    while pending:
        node, above = pending.pop()
        label = node.get("LabelName") if isinstance(node, dict) else None
        if not isinstance(label, str) or not label:
            raise UnreadableDataset(f"{where}: a class below {above[-1:]} has no LabelName")
        if label in above:
            raise UnreadableDataset(f"{where}: class {label} is below itself")
        ancestors.setdefault(label, set()).update(above)
        pending += [(child, (*above, label)) for child in _list_children(node, where)]
    return {label: tuple(sorted(names)) for label, names in ancestors.items()}


def _list_children(node: dict[str, Any], where: str) -> list[Any]:
    children = node.get("Subcategory", [])
    if not isinstance(children, list):
        raise UnreadableDataset(f"{where}: a field Subcategory is no list")
    return children


def name_ancestors(
    labels: Iterable[str],
    ancestors: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
    hierarchy: str,
) -> dict[str, tuple[str, ...]]:
    """The display names of the classes above each class, by its display name.

    Args:
        labels: the label names of the dataset.
        ancestors: of each label name, as `read_ancestors` returns them.
        names: display names by label name.
        hierarchy: the file that errors name.

    Raises:
        UnreadableDataset: a class above has no display name.
    """
    named = {}
    for label in labels:
        for above in ancestors.get(label, ()):
            if above not in names:
                raise UnreadableDataset(
                    f"{uris.redact_uri(hierarchy)}: {label} is below {above}, which --classes does not list"
                )
        if label in names:
            named[names[label]] = tuple(names[above] for above in ancestors.get(label, ()))
    return named


def expand_objects(
    objects: Iterable[AnnotatedObject], ancestors: Mapping[str, Sequence[str]]
) -> tuple[AnnotatedObject, ...]:
    """The objects, and each once more for every class above its own; equal objects once.

    Args:
        objects: of one image.
        ancestors: names of the classes above each class.
    """
    own = dict.fromkeys(objects)
    above = (replace(item, label=name) for item in own for name in ancestors.get(item.label, ()))
    return tuple(dict.fromkeys([*own, *above]))
