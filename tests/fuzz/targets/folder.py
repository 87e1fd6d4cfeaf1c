"""A folder of images with files of every kind in it."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from pipeline.sources.folder import open_folder
from tests.fuzz.mutators.values import TEXTS, shorten
from tests.fuzz.target import Target
from tests.fuzz.targets.source_answers import (
    OPTIONS,
    SourceAnswer,
    build_manifest,
    find_fault_in_rows,
    find_wrong_size,
)
from tests.sources.small_datasets import write_image

_ENDINGS = (".jpg", ".JPG", ".png", ".jfif", ".txt", "", ".jpg.part", ".eps")


def _write(folder: Path, random: Random) -> str:
    root = folder / "images"
    write_image(root / "plain.jpg")
    valid = (root / "plain.jpg").read_bytes()
    changes = [_add_entry(root, valid, random) for _ in range(random.randint(1, 3))]
    return ", ".join(filter(None, changes))


def _add_entry(root: Path, valid: bytes, random: Random) -> str:
    name = random.choice(("a", "b", "@eaDir/c", ".hidden", "sub/d", random.choice(TEXTS)))
    path = root / (
        name.replace("\x00", "").replace("..", "").strip("/")[:120] + random.choice(_ENDINGS)
    )
    kind = random.choice(
        (
            "valid",
            "valid",
            "empty",
            "text",
            "fifo",
            "link to nothing",
            "link",
            "loop",
            "folder",
            "linked folder",
        )
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_entry(path, kind, root, valid)
    except (OSError, ValueError):  # a name that the file system does not take
        return ""
    return f"{shorten(str(path.relative_to(root)))} is {kind}"


def _make_entry(path: Path, kind: str, root: Path, valid: bytes) -> None:
    if kind in ("valid", "empty", "text"):
        path.write_bytes({"valid": valid, "empty": b"", "text": b"no image"}[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"link to nothing": "nowhere", "link": root / "plain.jpg", "loop": path}
        path.symlink_to(targets.get(kind, root))


def _read(folder: Path) -> SourceAnswer:
    return build_manifest(open_folder(str(folder / "images"), OPTIONS), folder)


def _find_fault(folder: Path, answer: SourceAnswer) -> str | None:
    if not any(row["image_id"] == "plain.jpg" for row in answer.rows):
        return f"plain.jpg is not among {[row['image_id'] for row in answer.rows]}"
    files = sum(
        not path.is_dir() for path in (folder / "images").rglob("*") if os.path.lexists(path)
    )
    counted = len(answer.rows) + answer.tally.invalid_images + answer.tally.files_left_out.total()
    if counted < files - _count_hidden(folder / "images"):
        return f"{files} files, but only {counted} are images or said to be left out"
    faults = [find_fault_in_rows(answer.rows, None), *map(find_wrong_size, answer.rows)]
    return next(filter(None, faults), None)


def _count_hidden(root: Path) -> int:
    """Files in hidden folders, which are counted as the folder."""
    return sum(
        any(part.startswith((".", "@")) for part in path.relative_to(root).parts)
        for path in root.rglob("*")
    )


def _count_skipped(answer: SourceAnswer) -> int:
    return answer.skipped


TARGETS = (Target("folder", _write, _read, _find_fault, _count_skipped),)
