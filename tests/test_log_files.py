"""Names of log files: no two starts share one, and only these are listed and removed."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from pipeline import log_files, storage
from pipeline.log_files import Start, choose_start, find_starts


def test_a_start_follows_all_earlier_ones_and_has_an_id_of_its_own() -> None:
    first, other = choose_start([]), choose_start([])
    assert first.index == other.index == 1
    assert first.id != other.id, "two drivers that start at once write different files"
    earlier = [Start(9, "0" * 8), Start(12, "f" * 8), Start(3, "a" * 8)]
    assert choose_start(earlier).index == 13


def test_starts_are_ordered_by_index_not_by_id() -> None:
    early, late = Start(2, "f" * 8), Start(10_000, "0" * 8)
    names = [late.name_file("driver"), early.name_file("errors"), early.name_file("progress")]
    assert names[0] == "driver-10000-00000000.log"
    assert find_starts([*names, "train.jsonl", "driver-1-x.log"]) == [early, late]


def test_other_files_of_the_folder_are_neither_listed_nor_removed(tmp_path: Path) -> None:
    users = ("train.jsonl", "driver.log", "driver-0001-0123456g.log", "driver-0001-01234567.jsonl")
    own = [Start(1, "01234567").name_file(kind) for kind in ("driver", "errors", "progress")]
    for name in (*users, *own):
        storage.put(f"{tmp_path}/logs/{name}", b"")
    listed = log_files.list_log_files(str(tmp_path))
    assert listed == own
    patterns = log_files.WRITES
    assert all(any(fnmatch.fnmatchcase(f"logs/{name}", p) for p in patterns) for name in own)
    log_files.remove_log_files(str(tmp_path), listed)
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == sorted(users)
