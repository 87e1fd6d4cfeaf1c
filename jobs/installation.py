"""Says what is missing before a job imports it: the packages of this project, in one line.

A script imports this file first, by its own name: without the installed project, the folder of the script
is all that Python finds. It must run on any Python 3.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import PurePath

REQUIRED = (
    "pipeline",
    "array_api_compat",
    "defusedxml",
    "fsspec",
    "grpc",
    "jinja2",
    "markupsafe",
    "matplotlib",
    "numba",
    "numpy",
    "orjson",
    "PIL",
    "pyarrow",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "selectivesearch",
    "tyro",
    "yaml",
)
"""Packages that jobs need; those of optional extras are reported when they are needed."""
JOBS_WITHOUT_RAY = ("status", "verify")
"""Jobs that read an output alone, from any machine."""

TORCH = ("torch", "torchvision", "tensorboard", "sklearn")
"""Packages of the extra `torch`."""
TORCH_JOBS = ("compress", "demo", "train")
"""Jobs whose own process needs them. The driver of `detect` does not, only the nodes with its detectors."""

OLDEST_PYTHON = (3, 11)


def get_job() -> str:
    """The job that this process runs: `train` for jobs/train.py and for -m jobs.train."""
    if sys.argv[:1] != ["-m"]:
        return PurePath(sys.argv[0]).stem
    words = getattr(sys, "orig_argv", ["-m", ""])
    return str(words[words.index("-m") + 1]).rpartition(".")[2]


def list_required(job: str) -> "tuple[str, ...]":
    """The packages that a job's process must find."""
    required = tuple(name for name in REQUIRED if not (name == "ray" and job in JOBS_WITHOUT_RAY))
    is_detector_here = job == "detect" and not os.environ.get("RAY_ADDRESS")
    return required + TORCH if job in TORCH_JOBS or is_detector_here else required


def describe_fault() -> str:
    """What this Python lacks, or an empty string."""
    if sys.version_info < OLDEST_PYTHON:
        version, oldest = (".".join(map(str, v)) for v in (sys.version_info[:2], OLDEST_PYTHON))
        return f"Python {version} is too old, expected {oldest} or newer"
    missing = [name for name in list_required(get_job()) if find_spec(name) is None]
    if len(missing) == 1:
        return f"the package {missing[0]} is not installed"
    return f"the packages {', '.join(missing)} are not installed" if missing else ""


def check() -> None:
    """End the process with exit code 2 if this Python cannot run the jobs."""
    fault = describe_fault()
    if not fault:
        return
    # Set by `ray job submit` and by whoever connects to a cluster.
    is_on_cluster = bool(os.environ.get("RAY_ADDRESS"))
    remedy = (
        "install it on every node, head included; cluster/README.md shows how"
        if is_on_cluster
        else "use the environment that `make` sets up (. .venv/bin/activate), or run "
        "pip install '.[torch]' in the clone"
    )
    sys.stderr.write(f"error: {sys.executable or 'this Python'}: {fault}; {remedy}\n")
    sys.exit(2)


if __name__ == "installation":  # imported by a script, from its own folder
    check()
