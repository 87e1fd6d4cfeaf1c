"""No decision compares the clocks of two hosts: nothing reads a wall clock or a file's time to decide.

Hosts disagree about the time, by days if one is set wrong, and each host starts its monotonic clock itself.
So code that reads a wall clock or a modification time is listed here with what it does with the value, and
anything else that reads one fails this test. Monotonic clocks measure spans within one process:
`tests/chaos/node_faults.py` runs a node whose monotonic clock differs from its driver's.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

CLOCKS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    *("time.asctime", "time.clock_gettime", "time.clock_gettime_ns"),
    *(
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "uuid.uuid1",
        "uuid.uuid7",
    ),
    *("os.path.getmtime", "os.path.getctime", "os.path.getatime", "path.getmtime", "path.getctime"),
}
"""Calls that read a wall clock or a file's time, by their last two names."""
TIMES = {
    *("st_mtime", "st_ctime", "st_atime", "st_birthtime"),
    *("st_mtime_ns", "st_ctime_ns", "st_atime_ns", "date_time", "mtime"),
}
"""Attributes that hold the time of a file."""
METHODS = {"modified", "created", "ukey", "checksum"}
"""Methods of fsspec's stores that ask for the time of an object, or for a value made from it."""
KEYS = {
    *("mtime", "ctime", "created", "updated", "modified", "last_modified", "LastModified"),
    *("timeCreated", "creation_time", "Last-Modified", "last-modified", "Date"),
}
"""Keys of the time in what stores say about an object."""

READERS = {
    "pipeline.storage.get_etag": "part of a text that is compared for equality with an earlier one",
    "pipeline.runs.run_logs.RunLogs.add_lines": "the time in front of a line of a log, for people",
    "pipeline.runs.run_logs._LineHandler.__init__": "the time in front of a line of a log, for people",
}
"""The functions that may read one, as `module.function`, each with the reason why it decides nothing."""


def find_readers(source: str) -> set[tuple[str, str]]:
    """The functions of a module that read a wall clock or the time of a file, each with what it reads."""
    tree = ast.parse(source)
    clocks = CLOCKS | {f".{name}" for name in _list_imported_clocks(tree)}
    return {
        (function, name)
        for function, node in _walk(tree)
        if (name := _name_reading(node, clocks)) is not None
    }


def _list_imported_clocks(tree: ast.Module) -> Iterator[str]:
    """Names under which a module imports a clock itself: `from time import time as now`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = (node.module or "").rpartition(".")[2]
                if f"{module}.{alias.name}" in CLOCKS:
                    yield alias.asname or alias.name


def _walk(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """All nodes of a tree, each with the qualified name of the function that contains it."""
    nodes: list[tuple[str, ast.AST]] = [("", tree)]
    while nodes:
        function, node = nodes.pop()
        yield function, node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}" if function else node.name
        nodes.extend((function, child) for child in ast.iter_child_nodes(node))


def _name_reading(node: ast.AST, clocks: set[str]) -> str | None:
    """What a node reads, if it is a clock or a time."""
    name = None
    match node:
        case (
            ast.Attribute(value=ast.Name(id=owner), attr=name)
            | ast.Attribute(value=ast.Attribute(attr=owner), attr=name)
        ) if f"{owner}.{name}" in clocks:
            name = f"{owner}.{name}"
        case ast.Attribute(attr=name) if name in TIMES:
            pass
        case ast.Name(id=name, ctx=ast.Load()) if f".{name}" in clocks:
            pass
        case ast.Call(func=ast.Attribute(attr=name)) if name in METHODS:
            pass
        case ast.Constant(value=str(name)) if name in KEYS:
            pass
        case _:
            name = None
    return name


def test_only_listed_functions_read_a_wall_clock_or_the_time_of_a_file() -> None:
    found: dict[str, set[str]] = {}
    for folder in ("pipeline", "jobs"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
            for function, name in find_readers(path.read_text()):
                found.setdefault(f"{module}.{function}".rstrip("."), set()).add(name)
    unlisted = {name: reads for name, reads in found.items() if name not in READERS}
    assert not unlisted, (
        f"measure spans with time.monotonic, or list these with a reason: {unlisted}"
    )
    assert not READERS.keys() - found.keys(), "these no longer read a clock"


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef f(): return time.time() - 5",
        "import time\nclock = time.time",
        "from time import time\ndef f(): return time()",
        "from time import time_ns as now\ndef f(): return now()",
        "import datetime\ndef f(): return datetime.datetime.now(datetime.UTC)",
        "from datetime import datetime\ndef f(): return datetime.now()",
        "def f(path): return path.stat().st_mtime > 0",
        "import os\ndef f(path): return os.path.getmtime(path)",
        "def f(store, path): return store.modified(path)",
        "def f(info): return info['LastModified']",
        "def f(info): return info.get('mtime', 0)",
        "def f(info): return [info[key] for key in ('size', 'mtime')]",
    ],
)
def test_each_way_to_read_one_is_noticed(source: str) -> None:
    assert len(find_readers(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef f(): return time.monotonic() + time.perf_counter()",
        "from time import monotonic, sleep\ndef f(): return monotonic()",
        "def f(clock): return clock()",
        "def f(time): return time",
        "def f(info): return info['size']",
    ],
)
def test_monotonic_clocks_and_sizes_pass(source: str) -> None:
    assert not find_readers(source)
