"""Ray's object stores are small and full of another job's objects, with a folder to spill into or none."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos.node_faults import UNSHARE
from tests.chaos.outcome import Outcome
from tests.chaos.outputs import move_rows
from tests.chaos.processes import kill_tree, wait_until
from tests.chaos.raylets import Raylets
from tests.chaos.stage import Inputs, Stage
from tests.chaos.trial import Trial

STORE_BYTES = 80_000_000
"""About the smallest that Ray allows."""
PADDING = 1_500_000
"""Bytes that each image is larger: a shard then takes 6 MB of the object store, not a few kB of a message."""
HOARDED = 100_000_000
"""Bytes that the other job holds on each node: more than the store."""
SPILLING_BYTES = "8m"
"""Room of a spilling folder that is full at once."""


def fill_object_store(stage: Stage) -> Outcome:
    """Another job's objects fill the stores, so that Ray spills them."""
    with stage.use_cluster(Raylets(store_bytes=STORE_BYTES), nodes=0) as cluster:
        spilling = [stage.folder / f"spilling-{number}" for number in range(2)]
        for folder in spilling:
            folder.mkdir()
            cluster.add_node(options=[f"--object-spilling-directory={folder}"])
        with _hoard(stage):
            trial = _start(stage, "object_store_full")
            trial.wait_for_end()
            spilled = [sum(f.stat().st_size for f in s.rglob("*") if f.is_file()) for s in spilling]
        if not all(spilled):
            raise AssertionError(f"Ray spilled {spilled} bytes")
        trial.rerun_until_done()
        return trial.compare(note=f"Ray spilled {sum(spilled) / 1e6:.0f} MB")


def fill_spilling_folder(stage: Stage) -> Outcome | str:
    """The same, but the folder to spill into is full too, until the other job ends."""
    mounting = (*UNSHARE, "--mount")
    if subprocess.run([*mounting, "true"], capture_output=True, check=False).returncode:
        return "this machine does not allow the separate mount (unshare) that it needs"
    with stage.use_cluster(Raylets(store_bytes=STORE_BYTES), nodes=0) as cluster:
        folder = stage.folder / "no-room"
        folder.mkdir()
        mount = f'mount -t tmpfs -o size={SPILLING_BYTES} tmpfs {folder} && exec "$@"'
        for _ in range(2):
            cluster.add_node(
                before=[*mounting, "sh", "-c", mount, "sh"],
                options=[f"--object-spilling-directory={folder}"],
            )
        with _hoard(stage, patience=30):
            trial = _start(stage, "spilling_folder_full")
            code = trial.wait_for_end()
        log = trial.driver.read_log()
        if code != 1 or "object store is full" not in log:
            raise AssertionError(f"exit code {code}, expected 1 and the cause:\n{log[-3000:]}")
        trial.remember_parts()
        trial.rerun_until_done()
        return trial.compare(note="ends with an error that names the cause", allowed_reruns=1)


def _start(stage: Stage, fault: str, *options: str) -> Trial:
    """Start a run whose images take room in the object store."""
    inputs, uris = _write_padded(stage)
    expected = move_rows(stage.expected, uris)
    return Trial(stage, fault, *options, inputs=inputs, expected=expected)


def _write_padded(stage: Stage) -> tuple[Inputs, dict[str, str]]:
    """The stage's images with bytes after their end, which decoders skip; and the URI of each."""
    folder = stage.folder / "padded"
    folder.mkdir(exist_ok=True)
    paths = [folder / path.name for path in stage.images]
    for path, original in zip(paths, stage.images, strict=True):
        with path.open("wb") as file:
            file.write(original.read_bytes())
            file.truncate(file.tell() + PADDING)
    manifest = str(stage.folder / "padded.parquet")
    write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
    return replace(stage.local, manifest=manifest), {path.stem: str(path) for path in paths}


@contextlib.contextmanager
def _hoard(stage: Stage, patience: float = 120) -> Iterator[None]:
    """Another job that holds objects on each node while the block runs."""
    command = [sys.executable, "-m", "tests.chaos.hoard", str(HOARDED)]
    log = stage.folder / "hoard.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=stage.folder,
            env=os.environ | stage.cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(
            lambda: "holding" in log.read_text() or process.poll() is not None,
            f"the other job's objects: {log.read_text()[-2000:]}",
            patience,
            0.2,
        )
        yield
    finally:
        kill_tree(process)
