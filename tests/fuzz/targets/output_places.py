"""Jobs whose output is spelled so that it may be an input, or a folder with files of the user's.

A job may replace what an earlier run of it wrote. Its inputs, and files that no run wrote, stay as they are
whether it succeeds or not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.engine.propose.exchange import export_proposals, import_proposals
from pipeline.engine.train.training_output import prepare_output
from pipeline.errors import PipelineError
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from tests.fuzz.target import Target
from tests.fuzz.targets.run_outputs import build_record, plan_cut, write_output

_JOBS = ("import", "export", "run", "train")
_USER_FILES = (
    *("notes.txt", "logs/notes.txt", "best/photo.jpg", "steps/latest.txt", "logs/2024.log"),
    *("part-1.parquet", "model.onnx", "data.parquet", "run.json.bak", "best/x/model.bin"),
)


@dataclass(frozen=True)
class _Answer:
    """The files outside its output that a job changed."""

    changed: tuple[str, ...]


def _write(folder: Path, random: Random) -> str:
    output, _ = write_output(folder, "propose")
    export_proposals(output, str(folder / "boxes.pkl"))
    (folder / "link").symlink_to(output)
    (folder / "m").mkdir()
    shutil.copy(folder / "manifest.parquet", folder / "m" / "data.parquet")
    (folder / "file-link.pkl").symlink_to(folder / "boxes.pkl")
    for name in random.sample(_USER_FILES, 4):
        for place in ("output", "new"):
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("the user's")
    job, overwrite = random.choice(_JOBS), random.random() < 0.6
    target = random.choice(("output", "new", "link", "", "boxes.pkl", "file-link.pkl", "m", "m"))
    spelling = random.choice(("{}", "{}/", "new/../{}", "./{}", "file://{}"))
    (folder / "job.txt").write_text(f"{job} {int(overwrite)} {spelling.format(target)}")
    return f"{job} into {spelling.format(target)!r}, overwrite {overwrite}"


def _read(folder: Path) -> _Answer:
    job, overwrite, target = (folder / "job.txt").read_text().split(" ")
    is_uri = target.startswith("file://")
    target = f"file://{folder / target[7:]}" if is_uri else f"{folder}/{target}"
    before = _list_files(folder)
    try:
        _JOB_CALLS[job](folder, target, bool(int(overwrite)))
    except PipelineError:
        changed = _find_changed(folder, before)
        if not changed:
            raise
        return _Answer(changed)
    return _Answer(_find_changed(folder, before))


def _import(folder: Path, output: str, overwrite: bool) -> None:
    import_proposals(str(folder / "boxes.pkl"), str(folder / "m"), output, overwrite=overwrite)


def _export(folder: Path, output: str, overwrite: bool) -> None:
    export_proposals(str(folder / "output"), output)


def _run(folder: Path, output: str, overwrite: bool) -> None:
    options = RunOptions(overwrite=overwrite)
    open_run(output, build_record(folder, "propose"), plan_cut(folder), options)


def _train(folder: Path, output: str, overwrite: bool) -> None:
    prepare_output(output, RunRecord("train", {"seed": 0}), overwrite=overwrite)


_JOB_CALLS: dict[str, Callable[[Path, str, bool], None]] = {
    "import": _import,
    "export": _export,
    "run": _run,
    "train": _train,
}


def _list_files(folder: Path) -> dict[str, bytes]:
    """Inputs and files of the user's by path, with what they hold."""
    own = {"m/data.parquet", "boxes.pkl"} | {
        f"{place}/{name}" for place in ("output", "new") for name in _USER_FILES
    }
    return {
        name: (folder / name).read_bytes() for name in sorted(own) if os.path.lexists(folder / name)
    }


def _find_changed(folder: Path, before: dict[str, bytes]) -> tuple[str, ...]:
    after = _list_files(folder)
    changed = [name for name, data in before.items() if after.get(name) != data]
    is_import = (folder / "job.txt").read_text().startswith("import")
    if is_import and len(list((folder / "m").iterdir())) > 1:
        changed.append("m, a manifest that now has files of a run")
    return tuple(changed)


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    job, _, target = (folder / "job.txt").read_text().split(" ")
    if job == "export" and target.endswith("boxes.pkl"):
        return None  # an export replaces the file that it writes
    return f"removed or replaced: {', '.join(answer.changed)}" if answer.changed else None


TARGETS = (Target("output_place", _write, _read, _find_fault),)
