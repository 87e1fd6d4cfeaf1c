"""The files of cluster/ as the tests read them, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
BASE = CLUSTER / "kuberay" / "base"
OVERLAY = CLUSTER / "kuberay" / "overlay"

VALUE = "VALUE"
"""Stands for the value of a shell variable."""


def read_yaml(path: Path) -> Any:
    """The one document of a file."""
    return yaml.safe_load(path.read_text())


def read_resources() -> dict[str, dict[str, Any]]:
    """Kubernetes' resources of the base by file name; kustomize's own file is none."""
    files = (path for path in sorted(BASE.glob("*.yaml")) if path.name != "kustomization.yaml")
    return {path.stem: read_yaml(path) for path in files}


def read_pinned_versions() -> dict[str, str]:
    """The versions in constraints.txt by package."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def list_shell_texts() -> dict[str, str]:
    """Everything in cluster/ that a shell runs, or that a person types into one, by where it is."""
    texts = {path.name: path.read_text() for path in CLUSTER.glob("*.sh")}
    readme = (CLUSTER / "README.md").read_text()
    for number, block in enumerate(re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)):
        texts[f"README.md, block {number}"] = block
    for path in [*BASE.glob("*.yaml"), *CLUSTER.glob("*.yaml")]:
        for place, text in _iterate_strings(read_yaml(path)):
            keys = [str(key) for key in place]
            is_script = keys[-1] in ("entrypoint", "setup", "run") or "args" in keys
            if is_script or any(key.endswith("_commands") for key in keys):
                texts[f"{path.name}: {'.'.join(keys)}"] = text
    return texts


def _iterate_strings(
    value: Any, place: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _iterate_strings(item, (*place, key))


def split_commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell text as words, without redirections; variables become `VALUE`."""
    text = re.sub(r"\\\n\s*", " ", text).replace('"$@"', "")
    text = re.sub(r"\"?\$\([^()]*\)\"?", VALUE, text)  # twice, for one in another
    text = re.sub(r"\$\{[^}]*\}|\$\w+|\$!", VALUE, text)
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("&|;()<>"):
                yield _strip_assignments(words)
                words = []
            else:
                words.append(word)
        yield _strip_assignments(words)


def _strip_assignments(words: list[str]) -> list[str]:
    """Without what precedes a command: `NAME=value`, `exec`, `do`, `until` and the like."""
    while words and (
        re.match(r"\w+=", words[0]) or words[0] in ("exec", "do", "until", "then", "nice")
    ):
        words = words[1:]
    return words


def find_commands(program: str) -> list[tuple[str, list[str]]]:
    """Each command that starts with `program`: where it is, and its words after the program."""
    found = []
    for place, text in list_shell_texts().items():
        for words in split_commands(text):
            if words[:1] == [program]:
                found.append((place, words[1:]))
    return found
