"""Runs the commands of cluster/Dockerfile in a fresh virtual environment, where Docker cannot run.

    nice .venv/bin/python -m tests.cluster.check_images
    nice .venv/bin/python -m tests.cluster.check_images --target gpu

The steps of the target as the file has them, from the files that it copies: the pinned installation, the
kernels and, for `cpu` and `gpu`, torch. For `proposals` it then proves that torch is absent, runs prepare,
propose and analyze on a drawn dataset, with the extras that they may need, reads what detect says, and proves
that no job compiled another kernel. It prints the size of what pip installed. What only Docker can do (apt,
useradd, the base) is left out. It takes minutes and needs a package index, so `make test` leaves it out;
test_without_torch.py, beside it, runs the same jobs in the environment of the tests.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.cluster.dockerfile import Stage, read_stages
from tests.engine.drawn_images import draw_images
from tests.outputs import make_object, write_annotations, write_detections

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
            shutil.copy(ROOT / source, clone / target)


def _check_without_torch(folder: Path, environment: dict[str, str]) -> None:
    absent = (
        "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'torchvision'))))"
    )
    _run(["python", "-c", absent], folder, environment)
    manifest_uri, detections = _write_inputs(folder)
    compiled = _list_kernels(folder)
    manifest = f"--manifest {manifest_uri}"
    jobs = [
        "prepare folder --images images --output prepared.parquet --check",
        *(f"propose {manifest} --output {s} --strategy {s}" for s in ("single", "quality", "wide")),
        f"analyze proposals {manifest} --proposals wide --output recall",
        f"analyze detections {manifest} --detections {detections} --proposals wide --output scores",
        f"analyze sql --detections {detections} 'SELECT count(*) FROM detections'",
    ]
    for job in jobs:
        _run(["python", "-m", *shlex.split(f"jobs.{job}")], folder, environment)
    more = _list_kernels(folder) - compiled
    if more:
        sys.exit(f"jobs compiled what the image lacks: {', '.join(sorted(more))}")
    print(f"{len(compiled)} files of kernels, and no job added one")
    _check_that_detect_names_torch(folder, environment)


def _write_inputs(folder: Path) -> tuple[str, str]:
    """Drawn images with a manifest and detections, of which one is true; returns their places."""
    paths = draw_images(folder / "images", 4)
    objects = {path.stem: [make_object("cat", (10, 10, 40, 40))] for path in paths}
    places = {path.stem: str(path) for path in paths}
    manifest = str(folder / "manifest.parquet")
    write_annotations(manifest, objects, ("cat",), size=(80, 60), uris=places)
    boxes = {
        path.stem: [("cat", 0.9, (10, 10, 40, 40)), ("cat", 0.4, (0, 0, 5, 5))] for path in paths
    }
    return manifest, write_detections(str(folder / "detections"), manifest, boxes, ("cat",))


def _list_kernels(folder: Path) -> set[str]:
    """The files in which Numba keeps kernels: one of each for every set of types."""
    kernels = folder / "kernels"
    return {str(path.relative_to(kernels)) for path in kernels.rglob("*.nb?")}


def _check_that_detect_names_torch(folder: Path, environment: dict[str, str]) -> None:
    job = "jobs.detect --manifest manifest.parquet --checkpoint none --output found"
    ended = subprocess.run(
        ["python", "-m", *job.split()],
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
