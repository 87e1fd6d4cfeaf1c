"""The rule of the stations: what each folder may import, and that torch and ray stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

BESIDE = {
    *(
        "errors",
        "geometry",
        "imaging",
        "schema",
        "storage",
        "storage_errors",
        "store_options",
        "manifests",
        "unique_ids",
        "shards",
    ),
    *("run_record", "__init__"),
}
"""The modules beside the stations; shards is a station that is one module."""

ALLOWED = {
    "sources": BESIDE - {"shards", "run_record"},
    "proposals": BESIDE,
    "detector": BESIDE | {"proposals"},
    "training": BESIDE | {"proposals", "detector"},
    "analysis": BESIDE | {"proposals"},
    "runs": BESIDE,
    "engine": BESIDE | {"sources", "proposals", "detector", "training", "runs", "analysis"},
}
"""Stations and modules of `pipeline` that each station may import, besides itself."""

WITHOUT_TORCH = (
    "pipeline.sources",
    "pipeline.proposals",
    "pipeline.runs",
    "pipeline.analysis",
    "pipeline.engine",
)
DRIVERS_WITHOUT_TORCH = (
    "jobs.prepare",
    "jobs.propose",
    "jobs.detect",
    "jobs.exchange",
    "jobs.analyze",
)


def _files() -> list[Path]:
    return sorted(
        path for folder in ("pipeline", "jobs") for path in (REPOSITORY / folder).rglob("*.py")
    )


def _module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere in it, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _station(dotted: str) -> str | None:
    """The part of `pipeline` that a dotted name lies in: a station or a module beside them."""
    parts = dotted.split(".")
    if parts[0] != "pipeline":
        return None
    folder = REPOSITORY / "pipeline"
    if len(parts) == 1 or not (
        (folder / parts[1]).is_dir() or (folder / f"{parts[1]}.py").is_file()
    ):
        return "__init__"
    return parts[1]


FILES = _files()
IDS = [_module(path) for path in FILES]


def test_files_are_found() -> None:
    assert {"pipeline.geometry", "pipeline.sources.voc", "jobs.prepare"} <= set(IDS)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_station_imports_only_from_its_left(path: Path) -> None:
    own = _station(_module(path))
    if own is None:  # jobs
        return
    allowed = {own} | ALLOWED.get(own, BESIDE)
    for name in _imported(path):
        station = _station(name)
        assert station is None or station in allowed, f"{path} imports {name}"
        assert name.split(".")[0] != "jobs", f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_engine_and_jobs_import_ray(path: Path) -> None:
    if _module(path).startswith(("pipeline.engine", "jobs")):
        return
    assert not [name for name in _imported(path) if name.split(".")[0] == "ray"]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_detector_and_training_import_torch_at_the_top(path: Path) -> None:
    """Elsewhere torch may be imported in the function that a worker runs, never with the module."""
    if _module(path).startswith(("pipeline.detector", "pipeline.training")):
        return
    tree = ast.parse(path.read_text(), str(path))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        name
        for node in top
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    ]
    assert not [name for name in names if name.split(".")[0] in ("torch", "torchvision")]


def _modules_without_torch() -> list[str]:
    beside = [name for name in IDS if name.startswith("pipeline.") and name.count(".") == 1]
    stations = [name for name in IDS if name.startswith(WITHOUT_TORCH)]
    jobs = [name for name in IDS if name in DRIVERS_WITHOUT_TORCH]
    folders = {"pipeline.detector", "pipeline.training"}
    return [
        n for n in [*beside, *stations, *jobs] if n not in folders and not n.endswith("__main__")
    ]


def test_these_modules_load_without_torch() -> None:
    """In one fresh process, one module after the other, so that the first that loads torch is named."""
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'torch', 'torchvision'} & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    names = _modules_without_torch()
    assert {"pipeline.storage", "pipeline.shards", "pipeline.sources.coco", "jobs.prepare"} <= set(
        names
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_preparing_loads_no_ray() -> None:
    script = "import sys, jobs.prepare; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False, timeout=300)
    assert done.returncode == 0


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_file_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(), str(path)))
    assert docstring
    assert len(docstring.splitlines()[0]) > 20
