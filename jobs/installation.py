"""Says what is missing before a job imports it: the packages of this project, in one line.

A script imports this file first, by its own name: without the installed project, the folder of the script
is all that Python finds. It must run on any Python 3.
"""

import sys
from importlib.util import find_spec

REQUIRED = (
    "pipeline",
    "defusedxml",
    "fsspec",
    "hotcoco",
    "matplotlib",
    "numba",
    "numpy",
    "PIL",
    "pyarrow",
    "ray",
    "rich",
    "safetensors",
    "scipy",
    "torch",
    "torchvision",
    "tyro",
)
"""Packages that the jobs import; those of optional extras are reported when they are needed."""

OLDEST_PYTHON = (3, 11)


def describe_fault() -> str:
    """What this Python lacks, or an empty string."""
    if sys.version_info < OLDEST_PYTHON:
        version, oldest = (".".join(map(str, v)) for v in (sys.version_info[:2], OLDEST_PYTHON))
        return f"Python {version} is too old, expected {oldest} or newer"
    missing = [name for name in REQUIRED if find_spec(name) is None]
    return f"the package {missing[0]} is not installed" if missing else ""


def check() -> None:
    """End the process with exit code 2 if this Python cannot run the jobs."""
    fault = describe_fault()
    if fault:
        sys.stderr.write(
            f"error: {sys.executable or 'this Python'}: {fault}; use the environment that `make` sets up "
            "(. .venv/bin/activate), or run pip install . in the clone\n"
        )
        sys.exit(2)


if __name__ == "installation":  # imported by a script, from its own folder
    check()
