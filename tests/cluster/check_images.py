"""Runs the commands of cluster/Dockerfile in a fresh virtual environment, where Docker cannot run.

    nice .venv/bin/python -m tests.cluster.check_images
    nice .venv/bin/python -m tests.cluster.check_images --target gpu

The steps of the target as the file has them, from the files that it copies: the pinned installation, the
kernels and, for `cpu` and `gpu`, torch. For `proposals` it then proves that torch is absent, runs prepare and
propose on drawn images, and reads what detect says. It prints the size of what pip installed. What only
Docker can do (apt, useradd, the base) is left out. It takes minutes and needs a package index, so `make test`
leaves it out; test_without_torch.py, beside it, runs the same jobs in the environment of the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.cluster.dockerfile import Stage, read_stages
from tests.engine.drawn_images import draw_images

ROOT = Path(__file__).parents[2]
COPIED = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")


def main() -> None:
    """Check one target and exit with 1 if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=("proposals", "cpu", "gpu"), default="proposals")
    target = parser.parse_args().target
    stages = read_stages((ROOT / "cluster" / "Dockerfile").read_text())
    with tempfile.TemporaryDirectory() as folder:
        environment = _make_environment(Path(folder))
        _build(stages["proposals"], Path(folder), environment)
        if target == "proposals":
            _check_without_torch(Path(folder), environment)
        else:
            _build(stages[target], Path(folder), environment)
        packages = Path(folder, "venv", "lib")
        size = sum(path.lstat().st_size for path in packages.rglob("*") if path.is_file())
        print(f"{target}: {size / 1e6:.0f} MB of packages")


def _make_environment(folder: Path) -> dict[str, str]:
    venv.create(folder / "venv", with_pip=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHON", "VIRTUAL"))}
    return kept | {
        "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}",
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
        "TORCH_INDEX": "https://download.pytorch.org/whl/cpu",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _build(stage: Stage, folder: Path, environment: dict[str, str]) -> None:
    clone = folder / "clone"
    clone.mkdir(exist_ok=True)
    workdir = clone
    for keyword, arguments in stage.instructions:
        if keyword == "COPY":
            _copy(arguments.split(), clone)
        elif keyword == "WORKDIR":
            workdir = clone if arguments.startswith("/opt") else folder
        elif keyword == "RUN" and "apt-get" not in arguments:
            _run(["bash", "-euo", "pipefail", "-c", arguments], workdir, environment)


def _copy(arguments: list[str], clone: Path) -> None:
    *sources, target = arguments
    for source in sources:
        if (ROOT / source).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, clone / target, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, clone / source)


def _check_without_torch(folder: Path, environment: dict[str, str]) -> None:
    absent = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'torchvision'))))"
    )
    _run(["python", "-c", absent], folder, environment)
    draw_images(folder / "images", 4)
    jobs = (
        "prepare folder --images images --output manifest.parquet",
        "propose --manifest manifest.parquet --output boxes --strategy single",
        "detect --manifest manifest.parquet --checkpoint none --output detections",
    )
    for job in jobs[:2]:
        _run(["python", "-m", *f"jobs.{job}".split()], folder, environment)
    ended = subprocess.run(
        ["python", "-m", *f"jobs.{jobs[2]}".split()],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    print(ended.stderr, end="")
    if ended.returncode != 2 or "torch" not in ended.stderr:
        sys.exit("detect did not say that torch is missing")


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    print("+", *command, flush=True)
    ended = subprocess.run(command, cwd=folder, env=environment, check=False)
    if ended.returncode:
        sys.exit(f"exit code {ended.returncode}")


if __name__ == "__main__":
    main()
