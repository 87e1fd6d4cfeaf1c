"""The rule of the stations: what each folder may import, and where torch and ray may be imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

BESIDE = {
    "annotated_classes",
    "__init__",
    "atomic_files",
    "box_repair",
    "candidate_thresholds",
    "csv_cells",
    "errors",
    "excluded_images",
    "geometry",
    "image_formats",
    "image_keys",
    "image_members",
    "image_reader",
    "imaging",
    "json_reader",
    "local_files",
    "log_files",
    "kernel_cache",
    "manifest_footers",
    "manifest_files",
    "manifest_writer",
    "manifests",
    "object_facts",
    "option_ranges",
    "parquet_cells",
    "part_identity",
    "pixel_values",
    "printable",
    "progress_samples",
    "row_counts",
    "run_record",
    "secret_mask",
    "seen_ids",
    "schema",
    "shards",
    "stated_sizes",
    "storage",
    "storage_errors",
    "store_options",
    "table_checks",
    "tar_headers",
    "unique_ids",
    "untrusted",
    "uris",
}
"""The modules beside the stations; `shards` is a station that is one module."""

ALLOWED = {
    "sources": BESIDE - {"shards", "run_record"},
    "proposals": BESIDE,
    "detector": BESIDE | {"proposals"},
    "training": BESIDE | {"proposals", "detector"},
    "baselines": BESIDE | {"proposals", "detector", "training"},
    "runs": BESIDE,
    "analysis": BESIDE | {"proposals"},
    "report": BESIDE | {"proposals", "analysis", "inspection"},
    "exports": BESIDE | {"proposals", "analysis"},
    "inspection": BESIDE,
    "subsets": BESIDE,
    "engine": BESIDE
    | {"sources", "proposals", "detector", "training", "runs", "analysis", "report", "exports"}
    | {"baselines", "inspection"},
}
"""Stations and modules of `pipeline` that each station may import, besides itself."""

WITHOUT_TORCH = (
    "pipeline.sources",
    "pipeline.proposals",
    "pipeline.runs",
    "pipeline.analysis",
    "pipeline.report",
    "pipeline.exports",
    "pipeline.inspection",
    "pipeline.subsets",
    "pipeline.engine",
)
WITH_TORCH = ("pipeline.detector", "pipeline.training", "pipeline.baselines")
DRIVERS_WITHOUT_TORCH = (
    "jobs.prepare",
    "jobs.propose",
    "jobs.detect",
    "jobs.exchange",
    "jobs.analyze",
    "jobs.export",
    "jobs.status",
    "jobs.verify",
)


def _list_files() -> list[Path]:
    return sorted(
        path for folder in ("pipeline", "jobs") for path in (REPOSITORY / folder).rglob("*.py")
    )


def _get_module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _list_imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports anywhere in it, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _get_station(dotted: str) -> str | None:
    """The part of `pipeline` that a dotted name belongs to: a station or a module beside them."""
    parts = dotted.split(".")
    if parts[0] != "pipeline":
        return None
    folder = REPOSITORY / "pipeline"
    if len(parts) == 1 or not (
        (folder / parts[1]).is_dir() or (folder / f"{parts[1]}.py").is_file()
    ):
        return "__init__"
    return parts[1]


FILES = _list_files()
IDS = [_get_module(path) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_no_table_is_read_by_threads_that_may_abort_the_process(path: Path) -> None:
    """Of 80 processes that ended right after `pyarrow.parquet.read_table`, 18 aborted; see parse_parquet."""
    assert "pyarrow.parquet.read_table" not in set(_list_imports(path))
    assert "pq.read_table(" not in path.read_text()


def test_the_files_of_the_package_are_listed() -> None:
    assert {"pipeline.geometry", "pipeline.sources.voc", "jobs.prepare"} <= set(IDS)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_station_imports_only_stations_to_its_left(path: Path) -> None:
    own_station = _get_station(_get_module(path))
    if own_station is None:  # a job may import every station
        return
    allowed = {own_station} | ALLOWED.get(own_station, BESIDE)
    for name in _list_imports(path):
        station = _get_station(name)
        assert station is None or station in allowed, f"{path} imports {name}"
        assert name.split(".")[0] != "jobs", f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_engine_and_jobs_import_ray(path: Path) -> None:
    if _get_module(path).startswith(("pipeline.engine", "jobs")):
        return
    assert not [name for name in _list_imports(path) if name.split(".")[0] == "ray"]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_detector_and_training_import_torch_at_the_top(path: Path) -> None:
    """Elsewhere only the function that a worker runs may import torch, never the module itself."""
    if _get_module(path).startswith(WITH_TORCH):
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


def _list_modules_without_torch() -> list[str]:
    beside = [name for name in IDS if name.startswith("pipeline.") and name.count(".") == 1]
    stations = [name for name in IDS if name.startswith(WITHOUT_TORCH)]
    jobs = [name for name in IDS if name in DRIVERS_WITHOUT_TORCH]
    folders = set(WITH_TORCH)
    return [
        n for n in [*beside, *stations, *jobs] if n not in folders and not n.endswith("__main__")
    ]


def test_these_modules_load_without_torch() -> None:
    """A fresh process imports one module after another, so that the message names the first to load torch."""
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    loaded = {'torch', 'torchvision'} & set(sys.modules)\n"
        "    assert not loaded, f'{name} loads {loaded}'\n"
    )
    names = _list_modules_without_torch()
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


def test_preparing_and_runs_load_no_ray() -> None:
    runs = [name for name in IDS if name.startswith("pipeline.runs")]
    assert "pipeline.runs.output" in runs
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'ray' not in sys.modules, f'{name} loads ray'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *runs, "jobs.prepare", "jobs.status", "jobs.verify"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {
        name: {_find_module(imported) for imported in _list_imports(path)} - {name, None}
        for name, path in zip(IDS, FILES, strict=True)
    }
    for _ in IDS:  # remove the modules that import none of the others, until nothing changes
        leaves = {name for name, imported in imports.items() if not imported & imports.keys()}
        imports = {name: imported for name, imported in imports.items() if name not in leaves}
    assert not imports, f"these modules import each other: {sorted(imports)}"


def _find_module(dotted: str) -> str | None:
    """The project's module that a dotted name is, or is in."""
    if dotted in IDS:
        return dotted
    parent = dotted.rpartition(".")[0]
    return parent if parent in IDS else None


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_file_has_a_docstring_that_describes_it(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(), str(path)))
    assert docstring
    assert len(docstring.splitlines()[0]) > 20
