"""Where compiled kernels are kept: by digest of the sources, or apart if no folder can be written."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import kernel_cache
from pipeline.errors import InvalidConfiguration


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test, while Numba's own folders cannot be written."""
    monkeypatch.setattr(kernel_cache, "_is_writable", lambda folder: False)
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_numbas_own_folders_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert kernel_cache.choose_private_folder() is None


def test_all_processes_of_a_user_share_one_private_folder(temporary_folder: Path) -> None:
    folder = kernel_cache.choose_private_folder()
    assert folder is not None
    assert folder.parent == temporary_folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert kernel_cache.choose_private_folder() == folder


@pytest.mark.parametrize("trap", ["open", "link"])
def test_a_folder_that_others_can_fill_is_not_used(temporary_folder: Path, trap: str) -> None:
    expected = temporary_folder / f"fast-rcnn-kernels-{os.geteuid()}"
    other = temporary_folder / "other"
    other.mkdir(mode=0o700)
    if trap == "open":
        expected.mkdir()
        expected.chmod(0o777)
    else:
        expected.symlink_to(other)
    folder = kernel_cache.choose_private_folder()
    assert folder not in (None, expected)
    assert folder is not None
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700


def test_without_any_folder_the_error_says_what_to_set(
    temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(temporary_folder / "missing")
    monkeypatch.setattr(kernel_cache.tempfile, "gettempdir", lambda: missing)
    with pytest.raises(InvalidConfiguration, match="set NUMBA_CACHE_DIR to a folder that can"):
        kernel_cache.choose_private_folder()


def test_equal_code_has_the_same_kernels_wherever_it_lies(tmp_path: Path) -> None:
    # As with `ray job submit --working-dir`: every job's code lies in a folder of its own.
    program = (
        "import numpy as np\n"
        "from pipeline.proposals.box_agreement import count_agreement\n"
        "boxes, weights = np.zeros((2, 4), np.int32), np.ones(2, np.int32)\n"
        "count_agreement(boxes, weights, np.zeros((2, 2), np.float32))\n"
        "print(sum(count_agreement.stats.cache_hits.values()))\n"
    )
    hits = []
    for name in ("first", "second"):
        folder = tmp_path / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(kernel_cache.__file__).parent, folder / "pipeline", ignore=ignore)
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / "kernels"),
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        ended = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hits.append(int(ended.stdout))
    assert hits == [0, 1]


def test_the_digest_covers_all_sources_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "kernel.py").write_text("LIMIT = 1\n")
    (tmp_path / "notes.txt").write_text("not code")
    before = kernel_cache.digest_sources(tmp_path)
    kernel_cache.digest_sources.cache_clear()
    (tmp_path / "notes.txt").write_text("still not code")
    assert kernel_cache.digest_sources(tmp_path) == before
    kernel_cache.digest_sources.cache_clear()
    (tmp_path / "room" / "kernel.py").write_text("LIMIT = 2\n")
    assert kernel_cache.digest_sources(tmp_path) != before


def test_kernels_stay_beside_their_source_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    source = kernel_cache.__file__
    monkeypatch.setattr(kernel_cache.numba.config, "CACHE_DIR", "")
    assert kernel_cache.SourceLocator.from_function(kernel_cache.digest_sources, source) is None
    working_directory = Path("/tmp/ray/session/runtime_resources/working_dir_files/a/pipeline")
    monkeypatch.setattr(kernel_cache, "PACKAGE", working_directory)
    assert kernel_cache._choose_shared_folder()
