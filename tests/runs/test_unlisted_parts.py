"""Look-ups of parts that a store does not list yet, and their bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import storage
from pipeline.runs import unlisted_parts
from pipeline.runs.unlisted_parts import find_unlisted
from pipeline.shards import Shard

SHARDS = [Shard(number, f"{number:024x}", number, 1) for number in range(200)]


def _put(folder: Path, *ordinals: int) -> None:
    for ordinal in ordinals:
        (folder / SHARDS[ordinal].part_name).write_bytes(b"part")


def test_parts_that_exist_unlisted_are_found(tmp_path: Path) -> None:
    _put(tmp_path, 0, 1, 2, 5)
    assert find_unlisted(str(tmp_path), SHARDS, {0, 1}) == {2, 5}
    assert find_unlisted(str(tmp_path), SHARDS[:2], {0, 1}) == frozenset()


def test_a_run_of_misses_ends_the_look_ups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows has not begun; a resumed run of a million shards must not ask for each."""
    _put(tmp_path, 3, 60, 199)
    asked: list[str] = []
    exists = storage.exists

    def count(uri: str) -> bool:
        asked.append(uri)
        return exists(uri)

    monkeypatch.setattr(storage, "exists", count)
    assert find_unlisted(str(tmp_path), SHARDS, frozenset()) == {3, 60}
    assert len(asked) == 128  # the first whole batch after 60 + 64 misses
    monkeypatch.setattr(unlisted_parts, "MOST_MISSES", 200)
    assert find_unlisted(str(tmp_path), SHARDS, frozenset()) == {3, 60, 199}
