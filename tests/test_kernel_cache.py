"""Where compiled kernels are kept if none of Numba's folders can be written."""

from __future__ import annotations

import os
import stat
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
