"""A Python without the project's packages: one line instead of a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import installation

JOBS = Path(installation.__file__).parent


SCRIPTS = {path.stem for path in JOBS.glob("*.py")} - {"__init__", "entry", "installation"}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], check=False, capture_output=True, text=True, cwd=JOBS.parent
    )


@pytest.mark.parametrize("job", sorted(SCRIPTS))
def test_a_bare_python_gets_one_line_and_exit_code_2(job: str) -> None:
    # -S leaves out site-packages, -E PYTHONPATH.
    ended = _run("-S", "-E", str(JOBS / f"{job}.py"))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable}: the package pipeline is not installed; use ")


def test_a_job_run_as_a_module_is_checked_too() -> None:
    ended = _run("-S", "-E", "-m", "jobs.propose")
    assert ended.returncode == 2
    assert "is not installed; use the environment that `make` sets up" in ended.stderr


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 9, 18))
    assert installation.describe_fault() == "Python 3.9 is too old, expected 3.11 or newer"


def test_this_python_lacks_nothing() -> None:
    assert installation.describe_fault() == ""
