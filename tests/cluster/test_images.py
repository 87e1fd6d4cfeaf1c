"""cluster/Dockerfile and .dockerignore: lint, and what the images promise."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cluster import image_sizes
from tests.cluster.cluster_files import CLUSTER, ROOT
from tests.cluster.dockerfile import Stage, read_stages

TEXT = (CLUSTER / "Dockerfile").read_text()
STAGES = read_stages(TEXT)
PACKAGES = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "grpc": "grpcio",
    "llvmlite": "numba",
    "yaml": "pyyaml",
}
"""The requirement that brings a module of another name."""


def _run_hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [str(hadolint) if hadolint.exists() else shutil.which("hadolint") or "", str(path)]
    environment = os.environ | {"NO_COLOR": "1"}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=environment
    )


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    ended = _run_hadolint(CLUSTER / "Dockerfile")
    assert ended.returncode == 0, ended.stdout
    worse = tmp_path / "Dockerfile"
    worse.write_text(TEXT.replace("python:${PYTHON}", "python:latest"))
    assert "DL3007" in _run_hadolint(worse).stdout


def test_the_targets_build_on_each_other() -> None:
    assert {name: stage.base for name, stage in STAGES.items()} == {
        "proposals": "python:${PYTHON}",
        "cpu": "proposals",
        "gpu": "proposals",
    }
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"3\.11-slim-[a-z]+", python)


@pytest.mark.parametrize("name", STAGES)
def test_an_image_runs_as_a_user(name: str) -> None:
    assert STAGES[name].list_arguments("USER")[-1] == "1000:1000"


def test_only_the_images_that_need_torch_install_it() -> None:
    def list_installs(stage: Stage) -> str:
        return " ".join(run for run in stage.list_arguments("RUN") if "pip install" in run)

    assert "torch" not in list_installs(STAGES["proposals"])
    assert "[s3,gcs,azure,checks]" in list_installs(STAGES["proposals"])
    assert "fast-rcnn-pipeline[torch]" in list_installs(STAGES["cpu"])
    assert "fast-rcnn-pipeline[torch]" in list_installs(STAGES["gpu"])
    for stage in STAGES.values():
        for run in stage.list_arguments("RUN"):
            if "pip install" in run:
                assert "--constraint constraints.txt" in run


def test_the_extras_keep_torch_out_of_the_base() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def list_names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=]", text)[0] for text in requirements}

    assert not list_names(project["dependencies"]) & {"torch", "torchvision", "tensorboard"}
    assert {"torch", "torchvision"} <= list_names(extras["torch"])
    assert "torch" in extras["dev"][0].partition("[")[2], "make must install everything"
    assert {"s3", "gcs", "azure"} <= set(extras)


def test_the_base_has_what_its_modules_import() -> None:
    """Otherwise the image `proposals` lacks a package that torch happens to bring along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = _normalize_names(project["dependencies"])
    with_torch = base | _normalize_names(project["optional-dependencies"]["torch"])
    with_torch |= {"triton"}  # of torch's builds for GPUs; `gpu_kernels` does without it elsewhere
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "jobs").glob("*.py")]:
        needs_torch = {"detector", "training", "baselines"} & set(path.parts)
        for name in _list_top_imports(path) - sys.stdlib_module_names - {"pipeline", "jobs"}:
            package = PACKAGES.get(name, name.replace("_", "-"))
            assert package in (with_torch if needs_torch else base), f"{path} imports {name}"


def _normalize_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", text)[0].lower().replace("_", "-") for text in requirements}


def _list_top_imports(path: Path) -> set[str]:
    """The packages that a module imports when it is loaded."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - {"__future__"}


def test_files_that_are_no_modules_are_installed_too() -> None:
    """The image installs the package, so it has only what setuptools takes."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    taken = {
        found
        for pattern in settings["package-data"]["pipeline"]
        for found in (ROOT / "pipeline").glob(pattern)
    }
    files = {path for path in (ROOT / "pipeline").rglob("*") if path.is_file()}
    others = {p for p in files if p.suffix != ".py" and "__pycache__" not in p.parts}
    assert others == taken


def test_kernels_are_compiled_where_jobs_look_for_them() -> None:
    environment = " ".join(STAGES["proposals"].list_arguments("ENV"))
    (folder,) = re.findall(r"NUMBA_CACHE_DIR=(\S+)", environment)
    assert folder.startswith("/home/ray/")
    assert folder in " ".join(STAGES["proposals"].list_arguments("RUN"))
    for name in ("proposals", "cpu"):
        users = [arguments for key, arguments in STAGES[name].instructions if key == "USER"]
        steps = [
            "user" if (key, arguments) == ("USER", users[-1]) else arguments
            for key, arguments in STAGES[name].instructions
        ]
        (compiles,) = [step for step in steps if step.endswith("python -P compile_kernels.py")]
        assert steps.index(compiles) > steps.index("user"), "the user must be able to read them"


KERNELS = """
import importlib, pkgutil, runpy
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher
import pipeline.analysis, pipeline.proposals

script = runpy.run_path("cluster/compile_kernels.py")
script["compile_proposals"]()
script["compile_analysis"]()
kernels = {}
for package in (pipeline.analysis, pipeline.proposals):
    for _, name, _ in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not name.endswith("__main__"):
            kernels |= {
                f"{name}.{key}": value
                for key, value in vars(importlib.import_module(name)).items()
                if isinstance(value, Dispatcher) and value.py_func.__module__ == name
            }
inner = {name for kernel in kernels.values() for name in kernel.py_func.__code__.co_names}
cached = {
    name: kernel
    for name, kernel in kernels.items()
    if not isinstance(kernel._cache, NullCache) and name.rpartition(".")[2] not in inner
}
print(len(cached), *(name for name, kernel in cached.items() if not kernel.signatures))
"""


def test_the_image_compiles_every_kernel_of_proposals_and_analysis() -> None:
    """Those that only other kernels call are compiled, and kept, within them."""
    ended = subprocess.run(
        [sys.executable, "-c", KERNELS],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    count, *missing = ended.stdout.split()
    assert int(count) > 20
    assert not missing


def test_the_image_without_torch_is_small() -> None:
    """Of gcsfs and adlfs, which this environment may lack, 40 MB are to come."""
    size = image_sizes.measure_target("proposals")
    assert 1.0e9 < size < 1.5e9 - image_sizes.BASE_BYTES - 40e6
    extras = image_sizes.read_extras(STAGES["proposals"])
    assert extras == {"s3", "gcs", "azure", "checks"}
    packages = image_sizes.list_requirements(extras)
    assert packages.keys() >= {"ray", "s3fs", "duckdb", "gcsfs"}
    assert "torch" not in packages


def test_no_credentials_are_in_an_image() -> None:
    assert not re.search(r"(?i)(secret|password|token|access_key|credential)\w*=", TEXT)
    for stage in STAGES.values():
        for arguments in stage.list_arguments("COPY") + stage.list_arguments("ADD"):
            assert "." not in arguments.split()[:-1], "COPY . takes whatever lies in the clone"


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in STAGES.values()
        for arguments in stage.list_arguments("COPY")
        for source in arguments.split()[:-1]
    }
    assert allowed == copied
    assert all((ROOT / name).exists() for name in copied)
