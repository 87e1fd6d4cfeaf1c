"""Starts the child process that parses a file, and reads the plain arrays that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_fields
from pipeline.untrusted.proposal_files import ImageProposals

SOURCE, ANSWER, COUNTS, BOXES, SCORES = (
    "source",
    "answer.json",
    "counts.npy",
    "boxes.npy",
    "scores.npy",
)
"""Files in the folder that both processes share."""
REJECTED = 3
"""The child's exit code if the file is damaged."""

_MEMORY = 2 * 2**30
_MEMORY_PER_BYTE = 16
_SECONDS = 60
_BYTES_PER_SECOND = 2_000_000
"""Limits of the child, for a file of some size. The libraries alone reserve a gigabyte of addresses."""
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "SYSTEMROOT")


def parse_in_child(file_format: str, data: bytes) -> Iterator[ImageProposals]:
    """Yield the proposals of a `.mat` or `.pkl` file, parsed by another process.

    Args:
        file_format: a key of `proposal_files.PARSERS`.
        data: the file.

    Raises:
        UnreadableDataset: the file is damaged, or took the child down; the message does not name the file.
    """
    with tempfile.TemporaryDirectory(prefix="fast-rcnn-") as name:
        folder = Path(name)
        (folder / SOURCE).write_bytes(data)
        _run_child(file_format, folder, len(data))
        yield from _read_answer(folder)


def _run_child(file_format: str, folder: Path, size: int) -> None:
    memory = _MEMORY + _MEMORY_PER_BYTE * size
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    command = [sys.executable, "-P", "-m", "pipeline.untrusted", file_format, str(folder)]
    environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["OPENBLAS_NUM_THREADS"] = "1"  # each thread reserves addresses
    try:
        done = subprocess.run(  # noqa: S603  this interpreter, with a format and a folder of ours
            [*command, str(memory), str(seconds)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=3 * seconds,
        )
    except subprocess.TimeoutExpired:
        raise UnreadableDataset(f"reading it takes longer than {3 * seconds} s") from None
    if done.returncode == REJECTED:
        raise UnreadableDataset(_read_error(folder))
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise UnreadableDataset(
            f"reading it takes more than {seconds} s of computing, or all memory"
        )
    if done.returncode < 0:
        raise UnreadableDataset(
            f"it is damaged: its reader crashed ({signal.Signals(-done.returncode).name})"
        )
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise UnreadableDataset(f"its reader failed: {last:.300}")


def _read_error(folder: Path) -> str:
    try:
        return str(parse_fields((folder / ANSWER).read_bytes()).read_text("error"))
    except (InvalidJson, OSError):
        return "it is damaged"


def _read_answer(folder: Path) -> Iterator[ImageProposals]:
    answer = parse_fields((folder / ANSWER).read_bytes())
    ids = answer.read_texts("ids")
    counts, boxes = _load(folder / COUNTS), _load(folder / BOXES)
    scores = _load(folder / SCORES) if answer.read_flag("has_scores") else None
    start = 0
    for image_id, count in zip(ids, counts.tolist(), strict=True):
        rows = slice(start, start + count)
        yield ImageProposals(
            image_id, boxes[rows].copy(), None if scores is None else scores[rows].copy()
        )
        start += count


def _load(path: Path) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(path, allow_pickle=False)
    return array
