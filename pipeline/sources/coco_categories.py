"""The categories of a COCO file: names by id, without repetitions and unused groups."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipeline.errors import UnreadableDataset
from pipeline.sources.scalars import check_text, read_whole
from pipeline.sources.tally import Repair


def read_categories(
    records: Sequence[Mapping[str, Any]], used: Collection[int | None] | None, where: str
) -> tuple[dict[int, str], list[Repair]]:
    """Names by category id, in the order of the ids.

    Exporters write a grouping category beside the class of the same name, and some a category twice. A
    repetition is left out; of two categories with one name, the one that no annotation uses.

    Args:
        records: the field `categories`.
        used: the ids that annotations name; None if there are no annotations.
        where: the file that errors name.

    Raises:
        UnreadableDataset: an id or name is missing or invalid, or two different categories share one.
    """
    names: dict[int, str] = {}
    groups: set[str] = set()
    repairs: list[Repair] = []
    for index, record in enumerate(records):
        place = f"{where}: category {index}"
        key = read_whole(record.get("id"), "id", place)
        name = _read_name(record.get("name"), place)
        if names.get(key, name) != name:
            raise UnreadableDataset(
                f"{place}: id {key} occurs twice, for {names[key]!r} and {name!r}"
            )
        if key in names:
            repairs.append(Repair("category", "listed again: left out there", place, is_loss=True))
        names[key] = name
        if isinstance(record.get("supercategory"), str):
            groups.add(record["supercategory"].strip())
    if not names:
        raise UnreadableDataset(f"{where}: field categories is empty")
    counts = Counter(names.values())
    by_name: dict[str, list[int]] = defaultdict(list)
    for key, name in names.items():
        if counts[name] > 1:
            by_name[name].append(key)
    for name, keys in by_name.items():
        for key in _find_unused(name, sorted(keys), used, groups, where):
            del names[key]
            outcome = "unused beside another of the same name: left out"
            repairs.append(Repair("category", outcome, f"{where}: category {key} ({name})"))
    return dict(sorted(names.items())), repairs


def _read_name(value: Any, where: str) -> str:
    """A class name; datasets of digits write them as numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return check_text(value, "name", where)


def _find_unused(
    name: str,
    keys: list[int],
    used: Collection[int | None] | None,
    groups: set[str],
    where: str,
) -> list[int]:
    """All but one of the categories of one name."""
    if used is None:  # without annotations, only a group can be known: exporters put it first
        unused = keys[:-1] if name in groups else []
    else:
        unused = [key for key in keys if key not in used]
        unused = unused if len(unused) < len(keys) else keys[:-1]
    if len(unused) != len(keys) - 1:
        listed = ", ".join(map(str, keys))
        raise UnreadableDataset(
            f"{where}: name {name!r} occurs twice, for the ids {listed}: give each its own name"
        )
    return unused
