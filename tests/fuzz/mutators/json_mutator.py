"""Changes of a JSON tree, and of the text that holds it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.values import draw_text, draw_value, shorten

Path = tuple[Any, ...]
"""Keys and indices that lead to a node."""


def mutate_json(content: Any, random: Random) -> tuple[Any, str]:
    """A copy of the tree with one to three changed nodes, and their description."""
    content = copy.deepcopy(content)
    changes = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        paths = list(iterate_paths(content))
        if paths:
            changes.append(_change_node(content, random.choice(paths), paths, random))
    return content, ", ".join(changes)


def iterate_paths(content: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all nodes below the root."""
    if isinstance(content, dict):
        items: Any = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    else:
        return
    for key, value in items:
        yield (*path, key)
        yield from iterate_paths(value, (*path, key))


def get_node(content: Any, path: Path) -> Any:
    """The node at a path."""
    for key in path:
        content = content[key]
    return content


def _change_node(content: Any, path: Path, paths: list[Path], random: Random) -> str:
    parent, key = get_node(content, path[:-1]), path[-1]
    name = ".".join(map(str, path))[:80]
    kind = random.random()
    if kind < 0.55:
        parent[key] = draw_value(random)
        return f"{name} = {shorten(parent[key])}"
    if kind < 0.67:
        del parent[key]
        return f"{name} removed"
    if kind < 0.77:
        other = random.choice(paths)
        parent[key] = copy.deepcopy(get_node(content, other))
        return f"{name} = the value of {'.'.join(map(str, other))[:80]}"
    if kind < 0.87:
        return _repeat_node(parent, key, name, random)
    if kind < 0.95:
        wrapper = random.choice(("list", "text", "key"))
        value = parent[key]
        parent[key] = {"list": [value], "text": json.dumps(value), "key": {"value": value}}[wrapper]
        return f"{name} wrapped in a {wrapper}"
    parent[key] = [] if isinstance(parent[key], list) else {}
    return f"{name} emptied"


def _repeat_node(parent: Any, key: Any, name: str, random: Random) -> str:
    if isinstance(parent, list):
        parent.insert(random.randint(0, len(parent)), copy.deepcopy(parent[key]))
        return f"{name} repeated"
    new = draw_text(random)
    parent[new] = copy.deepcopy(parent[key])
    return f"{name} also as {shorten(new)}"


def encode_json(content: Any, random: Random) -> tuple[bytes, str]:
    """The tree as the bytes of a file, at times in an unusual form or damaged, and the description."""
    text = json.dumps(content)
    kind = random.random()
    if kind < 0.8:
        return text.encode(), ""
    if kind < 0.9:
        return mutate_bytes(text.encode(), random)
    if kind < 0.93:
        encoding = random.choice(("utf-8-sig", "utf-16", "utf-32", "utf-16-le"))
        return text.encode(encoding), f"as {encoding}"
    if kind < 0.95:
        depth = random.choice((500, 5_000, 100_000))
        nested = '{"a":' * depth + "1" + "}" * depth
        return f'{{"x": {nested}, {text[1:]}'.encode(), f"nested {depth} deep in a field"
    if kind < 0.97:
        return (text[:-1] + ", " + text[1:]).encode(), "all fields twice"
    if kind < 0.98:
        return json.dumps(text).encode(), "as a text in JSON"
    return (
        text + random.choice((" {}", "\x00", "\n\n", " x"))
    ).encode(), "something behind the end"
