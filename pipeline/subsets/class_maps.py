"""New names for the classes of manifests that are merged, and what contradicts itself among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline import storage, uris
from pipeline.errors import InvalidConfiguration
from pipeline.json_reader import InvalidJson, parse_fields

ClassMap = Mapping[str, str | None]
"""The new name of each class; None leaves its objects out. Classes that it does not name keep theirs."""

_MOST_BYTES = 1 << 24


def read_class_map(uri: str) -> ClassMap:
    """Read a JSON object of names: {"automobile": "car", "unsure": null}.

    Raises:
        InvalidConfiguration: it is no such object.
        StorageError: it does not exist or cannot be read.
    """
    try:
        values = parse_fields(storage.read(uris.make_absolute(uri), _MOST_BYTES)).values
    except InvalidJson as error:
        raise InvalidConfiguration(f"--class-map {uris.redact_uri(uri)}: {error}") from error
    for name, target in values.items():
        if target is not None and (not isinstance(target, str) or not target.strip()):
            raise InvalidConfiguration(
                f"--class-map {uris.redact_uri(uri)}: {name!r:.100} becomes {target!r:.100}, expected a "
                "name, or null to leave its objects out"
            )
    return dict(values)


def merge_classes(
    names: Sequence[str], classes: Sequence[Sequence[str]], maps: Sequence[ClassMap]
) -> tuple[str, ...]:
    """The classes of the merged manifest: those of the first in its order, then new ones of the others.

    Args:
        names: of the manifests, for messages.
        classes: of each manifest.
        maps: one for each manifest.

    Raises:
        InvalidConfiguration: a map names a class that no manifest has, one class becomes two, or two
            classes differ in case or spaces only.
    """
    _check_names(names, classes, maps)
    merged: dict[str, str] = {}
    becomes: dict[str, dict[str | None, str]] = defaultdict(dict)
    for name, of_manifest, class_map in zip(names, classes, maps, strict=True):
        for label in of_manifest:
            target = class_map.get(label, label)
            becomes[label].setdefault(target, name)
            if target is not None:
                merged.setdefault(target, name)
    for label, targets in becomes.items():
        if len(targets) > 1:
            shown = " and ".join(
                f"{'nothing' if target is None else repr(target)} in {name}"
                for target, name in targets.items()
            )
            raise InvalidConfiguration(
                f"class {label!r:.100} becomes {shown}: map it alike in all manifests that have it"
            )
    _check_alike(merged)
    if not merged:
        raise InvalidConfiguration("the class maps leave no class")
    return tuple(merged)


def _check_names(
    names: Sequence[str], classes: Sequence[Sequence[str]], maps: Sequence[ClassMap]
) -> None:
    for class_map in maps:
        sharing = [index for index, other in enumerate(maps) if other is class_map]
        present = {label for index in sharing for label in classes[index]}
        unknown = next((label for label in class_map if label not in present), None)
        if unknown is not None:
            where = ", ".join(names[index] for index in sharing)
            raise InvalidConfiguration(
                f"--class-map names {unknown!r:.100}, which is no class of {where}: "
                f"{', '.join(sorted(present))[:200]}"
            )


def _check_alike(merged: Mapping[str, str]) -> None:
    spelled: dict[str, str] = {}
    for label, name in merged.items():
        key = "".join(label.casefold().split())
        other = spelled.setdefault(key, label)
        if other != label:
            raise InvalidConfiguration(
                f"classes {other!r:.100} of {merged[other]} and {label!r:.100} of {name} differ in case or "
                "spaces only: a --class-map says whether they are one"
            )
