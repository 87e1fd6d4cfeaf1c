"""A file that crashes its reader, or takes too much, ends the child process and not this one."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UnreadableDataset
from pipeline.untrusted import child_process
from pipeline.untrusted.child_process import parse_in_child

GOOD = pickle.dumps(
    {
        "ids": ["a", "b"],
        "boxes": [np.array([[0, 0, 9, 9], [1, 1, 2, 2]], np.float32), np.zeros((0, 4))],
        "objectness_logits": [np.array([1.0, 3.0]), np.zeros(0)],
    }
)


def test_the_content_passes_through_the_child() -> None:
    first, second = parse_in_child("pkl", GOOD)
    assert (first.image_id, first.boxes.tolist()) == ("a", [[1, 1, 2, 2], [0, 0, 9, 9]])
    assert first.scores is not None
    assert first.scores.tolist() == [3, 1]
    assert (second.image_id, second.boxes.shape) == ("b", (0, 4))


def test_modules_in_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipeline").mkdir()
    for name in ("pipeline/__init__.py", "numpy.py", "pickle.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert [image.image_id for image in parse_in_child("pkl", GOOD)] == ["a", "b"]


def test_a_rejection_has_the_childs_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UnreadableDataset, match="it lacks 'objectness_logits'; it has ids, boxes"):
        list(parse_in_child("pkl", GOOD.replace(b"objectness_logits", b"objectness_logitz")))
    assert list(tmp_path.iterdir()) == []


CHILDREN = {
    "crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"crashed \(SIGSEGV\)"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "or all memory"),
    "exception": ("raise SystemError('odd file')", "its reader failed: SystemError: odd file"),
    "no answer": ("import sys; sys.exit(3)", "it is damaged"),
}


@pytest.mark.parametrize("case", CHILDREN)
def test_a_child_that_dies_is_an_error_of_the_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, message = CHILDREN[case]
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(UnreadableDataset, match=message):
        list(parse_in_child("pkl", GOOD))


def test_a_child_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(child_process, "_SECONDS", 0.1)
    with pytest.raises(UnreadableDataset, match="takes longer than"):
        list(parse_in_child("pkl", GOOD))


def test_memory_of_the_child_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.zeros((2_000_000, 4), np.float32)
    data = pickle.dumps({"ids": [1], "boxes": [boxes], "objectness_logits": [boxes[:, 0]]})
    monkeypatch.setattr(child_process, "_MEMORY", 250 * 2**20)
    monkeypatch.setattr(child_process, "_MEMORY_PER_BYTE", 0)
    with pytest.raises(UnreadableDataset, match=r"it needs more than 0\.3 GB of memory"):
        list(parse_in_child("pkl", data))


def test_the_child_gets_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, seen = tmp_path / "python", tmp_path / "environment"
    python.write_text(f"#!/bin/sh\nenv > {seen}\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setitem(os.environ, "AWS_SECRET_ACCESS_KEY", "hidden")
    with pytest.raises(UnreadableDataset):
        list(parse_in_child("pkl", GOOD))
    assert "PYTHONPATH" in seen.read_text()
    assert "hidden" not in seen.read_text()
