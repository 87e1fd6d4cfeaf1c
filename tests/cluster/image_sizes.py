"""The size of the packages in each image, added up from the environment that runs this, without an index:

    .venv/bin/python -m tests.cluster.image_sizes

Follows the requirements of the extras that cluster/Dockerfile installs, and adds up the files that pip
recorded, bytecode included. `cpu` is `gpu` less what PyTorch's builds without CUDA leave out: NVIDIA's
packages, Triton, and CUDA's part of torch itself. Packages that this environment lacks are named;
check_images.py, beside this, measures `proposals` with them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.cluster.cluster_files import CLUSTER, ROOT
from tests.cluster.dockerfile import Stage, read_stages

BASE_BYTES = 150_000_000
"""About what Debian, Python, rsync and ssh take."""
CUDA_PACKAGE = re.compile(r"nvidia-.*|cuda-.*|triton")
CUDA_FILE = re.compile(r"torch/lib/.*(cuda|nvrtc|nvshmem)")


def list_requirements(extras: Iterable[str]) -> dict[str, Distribution | None]:
    """The packages that the project needs with some extras, by name; None for one that is not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left = [Requirement(text) for text in project["dependencies"]]
    for extra in extras:
        left += map(Requirement, project["optional-dependencies"][extra])
    packages: dict[str, Distribution | None] = {}
    seen: set[tuple[str, str]] = set()
    while left:
        needed = left.pop()
        name = canonicalize_name(needed.name)
        for extra in {"", *needed.extras} - {extra for key, extra in seen if key == name}:
            seen.add((name, extra))
            packages[name] = package = _find_package(name)
            texts = () if package is None else package.requires or ()
            requirements = map(Requirement, texts)
            left += [r for r in requirements if not r.marker or r.marker.evaluate({"extra": extra})]
    return packages


def _find_package(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def measure_package(package: Distribution, without: re.Pattern[str] | None = None) -> int:
    """Bytes of a package's files on disk, without those whose path begins with a pattern."""
    paths = [
        Path(str(package.locate_file(file)))
        for file in package.files or ()
        if without is None or not without.match(str(file))
    ]
    return sum(path.lstat().st_size for path in paths if path.is_file())


def read_extras(stage: Stage) -> set[str]:
    """The extras that a stage of the Dockerfile installs."""
    lists = re.findall(r"pip install [^&]*\[([\w,]+)\]", " ".join(stage.list_arguments("RUN")))
    return {extra for names in lists for extra in names.split(",")}


def measure_target(target: str) -> int:
    """Bytes of the packages of a target, without those that are not installed here."""
    stages = read_stages((CLUSTER / "Dockerfile").read_text())
    extras = read_extras(stages["proposals"]) | read_extras(stages[target])
    is_cpu = target == "cpu"
    return sum(
        measure_package(package, CUDA_FILE if is_cpu else None)
        for name, package in list_requirements(extras).items()
        if package is not None and not (is_cpu and CUDA_PACKAGE.fullmatch(name))
    )


def main() -> None:
    """Print a line per target, and what is missing here."""
    stages = read_stages((CLUSTER / "Dockerfile").read_text())
    extras = {extra for stage in stages.values() for extra in read_extras(stage)}
    for target in stages:
        size = measure_target(target)
        image = (size + BASE_BYTES) / 1e9
        print(f"{target}: {size / 1e9:.2f} GB of packages, an image of about {image:.2f} GB")
    packages = list_requirements(extras)
    missing = sorted(name for name, package in packages.items() if package is None)
    print(f"not installed here, so not counted: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
