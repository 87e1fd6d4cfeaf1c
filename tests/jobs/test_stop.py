"""Ctrl-C and SIGTERM end a job within seconds, say how to resume, and leave no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import shards
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.engine.drawn_images import draw_images, write_random_checkpoint

ROOT = Path(__file__).parents[2]
IMAGES = 400


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    paths = draw_images(folder / "images", IMAGES)
    rows = [ManifestRow(path.stem, str(path), 80, 60, None) for path in paths]
    write_manifest(str(folder / "manifest.parquet"), rows, None)
    write_random_checkpoint(folder)
    return folder


def _command(job: str, inputs: Path, output: Path) -> list[str]:
    options = {"manifest": inputs / "manifest.parquet", "output": output, "shard-size": 2}
    options |= {"strategy": "single"}
    if job == "detect":
        options |= {"checkpoint": inputs / "checkpoint", "actors": 1}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]


def _list_processes(session: int) -> list[str]:
    """Command lines of the processes that are left of a session."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text().rpartition(")")[2].split()
            state, process_session = stat[0], int(stat[3])
            if process_session == session and state != "Z":
                commands.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return commands


@pytest.mark.parametrize(
    ("job", "number", "more"),
    [
        ("detect", signal.SIGTERM, ()),
        ("propose", signal.SIGINT, ("--overwrite",)),
    ],
)
def test_a_stopped_job_keeps_what_is_committed(
    job: str, number: signal.Signals, more: tuple[str, ...], inputs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    running = subprocess.Popen(
        [*_command(job, inputs, output), *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(list(output.glob("part-*"))) < 3 and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(number)
    start = time.monotonic()
    _, error_output = running.communicate(timeout=120)
    seconds = time.monotonic() - start
    assert running.returncode == 128 + number, error_output
    assert seconds < 30, error_output
    parts = sorted(output.glob("part-*"))
    assert 3 <= len(parts) < IMAGES // 2
    assert "Traceback" not in error_output
    assert error_output.splitlines()[-1] == "stopped"
    (line,) = [line for line in error_output.splitlines() if " images are committed in " in line]
    rerun = "the same command" + (" without --overwrite" if more else "")
    assert line.endswith(f"images are committed in {output}; {rerun} does the rest")
    assert int(line.split("stopped: ")[1].split()[0]) <= 2 * len(parts)
    deadline = time.monotonic() + 20
    while (left := _list_processes(running.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert sorted(output.glob("part-*")) == parts  # nothing was written after the job ended
    planned = shards.read_shard_table(str(output))
    assert planned is not None
    assert shards.list_parts(str(output), planned).strays == ()
