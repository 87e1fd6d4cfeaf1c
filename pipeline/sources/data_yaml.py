"""YOLO's data.yaml: classes by number, and where the images of each split are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.errors import UnreadableDataset
from pipeline.sources.scalars import check_text, is_absent, read_whole
from pipeline.sources.text_files import decode_text

_NOT_SPLITS = frozenset({"path", "names", "nc", "download", "kpt_shape", "flip_idx", "roboflow"})
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class DataYaml:
    """The fields of a data.yaml that a reader of boxes needs."""

    names: Mapping[int, str]
    """Class names by number, in the order of the numbers."""
    splits: Mapping[str, tuple[str, ...]]
    """Folders, or lists of images (`.txt`), by split, as the file writes them."""
    path: str | None
    """The dataset's folder as the file writes it; it may be that of another machine."""
    has_keypoints: bool
    """Lines of labels hold keypoints behind the box."""


class _Loader(yaml.SafeLoader):
    """Plain values only, no key twice, of which YAML keeps the last, and no references.

    A few lines of references to references are billions of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds a reference (*name), which is not read")
        return super().compose_node(parent, index)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    pairs = [(loader.construct_object(key, deep=True), value) for key, value in node.value]
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.YAMLError(f"a key is {type(key).__name__}, expected a text or a number")
        if key in content:
            raise yaml.YAMLError(f"key {key!r:.60} occurs twice")
        content[key] = loader.construct_object(value, deep=True)
    return content


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def parse_data_yaml(data: bytes, where: str) -> DataYaml:
    """Parse a data.yaml.

    Args:
        data: YAML 1.1 in UTF-8.
        where: the file that errors name.

    Raises:
        UnreadableDataset: it is not YAML, lacks classes, or a field is of the wrong kind.
    """
    text = decode_text(data, where)
    try:
        content = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnreadableDataset(f"{where} is not well-formed YAML: {reason}") from error
    if not isinstance(content, dict):
        raise UnreadableDataset(f"{where} holds no keys; expected names and splits such as train")
    path = content.get("path")
    return DataYaml(
        _read_names(content, where),
        _read_splits(content, where),
        None if is_absent(path) else check_text(path, "path", where),
        not is_absent(content.get("kpt_shape")),
    )


def _read_names(content: Mapping[Any, Any], where: str) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    number = None if is_absent(count) else read_whole(count, "nc", where)
    if isinstance(names, list):
        names = dict(enumerate(names))
    if is_absent(names) and number is not None and 0 < number <= _MOST_CLASSES:
        return {key: f"class_{key}" for key in range(number)}
    if not isinstance(names, dict) or not names:
        raise UnreadableDataset(
            f"{where}: field names is {content.get('names')!r:.60}, expected a list of class names, or "
            "names by number"
        )
    by_number: dict[int, str] = {}
    for key, name in names.items():
        place = f"{where}: class {key!r:.60}"
        by_number[read_whole(key, "names", place)] = read_class_name(name, place)
    if len(by_number) < len(names) or min(by_number) < 0:
        raise UnreadableDataset(f"{where}: field names has a number twice, or a negative one")
    if number is not None and number != len(by_number):
        raise UnreadableDataset(f"{where}: nc is {number}, but names has {len(by_number)} classes")
    check_distinct(by_number, where)
    return dict(sorted(by_number.items()))


def read_class_name(value: Any, where: str) -> str:
    """A class name; YAML reads some as numbers or flags, such as 7 and `yes`."""
    if isinstance(value, bool | float) or value is None:
        raise UnreadableDataset(
            f"{where}: its name is {value!r}, expected a text; put the name in quotes"
        )
    return str(value) if isinstance(value, int) else check_text(value, "names", where)


def check_distinct(names: Mapping[int, str], where: str) -> None:
    """Reject two classes of one name.

    Raises:
        UnreadableDataset: names the class and its numbers.
    """
    first: dict[str, int] = {}
    for key, name in names.items():
        if first.setdefault(name, key) != key:
            raise UnreadableDataset(
                f"{where}: class {name!r} occurs twice, as number {first[name]} and {key}: "
                "give each its own name"
            )


def _read_splits(content: Mapping[Any, Any], where: str) -> dict[str, tuple[str, ...]]:
    splits: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        if key in _NOT_SPLITS or not isinstance(key, str):
            continue
        places = value if isinstance(value, list) else [value]
        if places and all(isinstance(place, str) and place.strip() for place in places):
            splits[key] = tuple(check_text(place, key, where) for place in places)
    return splits
