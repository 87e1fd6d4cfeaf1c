"""A Python without the project's packages: one line instead of a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobs import installation

JOBS = Path(installation.__file__).parent


SCRIPTS = {
    path.stem for path in JOBS.glob("*.py") if 'if __name__ == "__main__":' in path.read_text()
} - {"installation"}


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=JOBS.parent,
        env=environment | variables,
    )


@pytest.mark.parametrize("job", sorted(SCRIPTS))
def test_a_bare_python_gets_one_line_and_exit_code_2(job: str) -> None:
    # -S leaves out site-packages, -E PYTHONPATH.
    ended = _run("-S", "-E", str(JOBS / f"{job}.py"))
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable}: the packages pipeline, array_api_compat, ")
    assert " are not installed; use the environment that `make` sets up" in line


def test_a_job_run_as_a_module_is_checked_too() -> None:
    ended = _run("-S", "-E", "-m", "jobs.propose")
    assert ended.returncode == 2
    assert "are not installed; use the environment that `make` sets up" in ended.stderr


def test_on_a_cluster_the_remedy_is_for_its_nodes() -> None:
    """`ray job submit` starts jobs with the head's Python and sets RAY_ADDRESS."""
    ended = _run("-S", "-E", str(JOBS / "propose.py"), RAY_ADDRESS="10.0.0.1:6379")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.endswith("install it on every node, head included; cluster/README.md shows how")


@pytest.mark.parametrize("argument", ["jobs/train.py", "/clone/jobs/train.py"])
def test_the_job_is_read_from_the_script(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "argv", [argument, "--recipe", "tiny"])
    assert installation.get_job() == "train"


def test_the_job_is_read_from_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "argv", ["-m"])
    monkeypatch.setattr(installation.sys, "orig_argv", ["python", "-u", "-m", "jobs.train", "-m"])
    assert installation.get_job() == "train"


def test_torch_is_required_where_the_detector_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "torch" in installation.list_required("train")
    assert "torch" in installation.list_required("detect")
    assert "torch" not in installation.list_required("propose")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "torch" not in installation.list_required("detect")


MODULES = {"grpcio": "grpc", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""What programs import from packages of other names."""


def _list_modules(requirements: list[str]) -> set[str]:
    """The modules of requirements such as `ray[default]>=2.60`."""
    packages = [re.split(r"[\[<>=~! ;]", requirement)[0] for requirement in requirements]
    return {MODULES.get(package, package.replace("-", "_")) for package in packages}


def test_the_packages_of_pyproject_are_required() -> None:
    project = tomllib.loads((JOBS.parent / "pyproject.toml").read_text())["project"]
    plain, extra = project["dependencies"], project["optional-dependencies"]["torch"]
    assert _list_modules(plain) == {*installation.REQUIRED} - {"pipeline"}
    assert _list_modules(extra) - {"ray"} == {*installation.TORCH}


def test_jobs_that_read_an_output_alone_need_no_ray() -> None:
    assert "ray" in installation.list_required("propose")
    assert "ray" not in installation.list_required("status")
    assert "ray" not in installation.list_required("verify")  # test_imports.py: they load none


def test_a_single_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name == "orjson" else name)
    assert installation.describe_fault() == "the package orjson is not installed"


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.sys, "version_info", (3, 9, 18))
    assert installation.describe_fault() == "Python 3.9 is too old, expected 3.11 or newer"


def test_this_python_lacks_nothing() -> None:
    assert installation.describe_fault() == ""
