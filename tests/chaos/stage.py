"""The stage of the faults: a Ray of real raylets, an object store behind a proxy, images, drivers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipeline import storage
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos import outputs
from tests.chaos.driver import Driver
from tests.chaos.outputs import Row
from tests.chaos.processes import kill_tree
from tests.chaos.proxy import FaultProxy
from tests.chaos.raylets import Raylets
from tests.engine.drawn_images import draw_images, write_random_checkpoint
from tests.swift import Swift, apply_environment, find_free_port, forget_clients, make_environment

ROOT = Path(__file__).parents[2]
HOSTILE = Path(__file__).parent / "hostile"
BUCKET = "chaos"
SHARD_SIZE = 4
AT_WORK = 6 * SHARD_SIZE
"""The most images at work on two cores with two detectors: a shard for each core, two for each detector."""
PROPOSING = (
    *("--strategy", "single", "--max-boxes", "50", "--min-side", "8"),
    *("--shard-size", str(SHARD_SIZE)),
)
DETECTING = ("--precision", "fp32", "--score-threshold", "0.0", "--max-per-image", "5")
Job = Literal["detect", "propose"]


@dataclass(frozen=True)
class Inputs:
    """A manifest, a checkpoint and the parent of all outputs, on the local disk or in the store."""

    manifest: str
    checkpoint: str
    outputs: str


@dataclass
class Stage:
    """Everything that a fault needs."""

    folder: Path
    cluster: Raylets
    images: list[Path]
    local: Inputs
    expected: list[Row] = field(default_factory=list)
    swift: Swift | None = None
    proxy: FaultProxy | None = None
    stored: Inputs | None = None
    """The same images in the object store."""
    stored_expected: list[Row] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)
    store_environment: dict[str, str] = field(default_factory=dict)
    """Variables by which jobs access the store through the proxy."""

    @contextlib.contextmanager
    def use_cluster(self, cluster: Raylets, nodes: int = 2) -> Iterator[Raylets]:
        """Start a cluster of `nodes` nodes of one core, on which jobs run while the block does."""
        previous, self.cluster = self.cluster, cluster
        try:
            with cluster:
                for _ in range(nodes):
                    cluster.add_node()
                yield cluster
        finally:
            self.cluster = previous

    def locate_output(self, name: str, inputs: Inputs | None = None) -> str:
        """The URI of an output folder."""
        return f"{(inputs or self.local).outputs}/{name}"

    def start_job(
        self,
        output: str,
        *options: str,
        inputs: Inputs | None = None,
        job: Job = "detect",
        environment: dict[str, str] | None = None,
        settings: tuple[str, ...] | None = None,
        before: tuple[str, ...] = (),
    ) -> Driver:
        """Start a job into an output.

        Args:
            output: its URI.
            options: more options of the job.
            inputs: images, checkpoint and folder of outputs; by default those on disk.
            job: the job.
            environment: its variables beside those of this process; by default the cluster's.
            settings: options that decide the rows; by default those of the suite.
            before: a command that runs the job, such as `unshare`.
        """
        inputs = inputs or self.local
        arguments = ["--manifest", inputs.manifest, "--output", output]
        if job == "detect":
            arguments += ["--checkpoint", inputs.checkpoint]
        if settings is None:
            settings = choose_settings(job, has_proposals="--proposals" in options)
        log = self.folder / f"driver-{len(self.drivers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    *(*before, sys.executable, str(ROOT / "jobs" / f"{job}.py")),
                    *(*arguments, *settings, *options),
                ],
                cwd=self.folder,
                env=os.environ | (self.cluster.environment if environment is None else environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        driver = Driver(process, output, log)
        self.drivers.append(driver)
        return driver

    def ensure_proposals(self) -> str:
        """The proposals of the images on disk; the first call runs the propose job."""
        output = self.locate_output("proposals")
        if not Path(output).is_dir():
            self.run_job(output, job="propose")
        return output

    def run_job(
        self, output: str, *options: str, inputs: Inputs | None = None, job: Job = "detect"
    ) -> Driver:
        """Run a job and wait until it succeeds.

        Raises:
            RuntimeError: it failed.
        """
        driver = self.start_job(output, *options, inputs=inputs, job=job)
        if code := driver.wait():
            raise RuntimeError(f"exit code {code}:\n{driver.read_log()[-3000:]}")
        return driver


def choose_settings(job: Job, *, has_proposals: bool) -> tuple[str, ...]:
    """The options of a job that decide its rows; a detect job with stored proposals computes none."""
    if job == "propose":
        return PROPOSING
    return DETECTING if has_proposals else (*PROPOSING, *DETECTING)


@contextlib.contextmanager
def set_up_stage(images: int, *, store: bool = True, nodes: int = 2) -> Iterator[Stage]:
    """Start `nodes` raylets of one core, draw images on disk and in a store, and run once undisturbed."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONPATH", f"{HOSTILE}{os.pathsep}{ROOT}")
        patch.delenv("RAY_ADDRESS", raising=False)
        store_port = find_free_port()
        environment = make_environment(store_port)
        swift = proxy = None
        if store:
            swift = stack.enter_context(Swift(store_port, environment["AWS_SECRET_ACCESS_KEY"]))
            proxy = stack.enter_context(FaultProxy(store_port))
            apply_environment(environment, patch)
            forget_clients()
        # The jobs access the store through the proxy, the comparison does not.
        proxied = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"} if proxy else {}
        cluster = stack.enter_context(Raylets(proxied))
        for _ in range(nodes):
            cluster.add_node()
        paths = draw_images(folder / "images", images)
        manifest = str(folder / "manifest.parquet")
        write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
        local = Inputs(manifest, write_random_checkpoint(folder), str(folder))
        stage = Stage(folder, cluster, paths, local, store_environment=proxied)
        stack.callback(lambda: [kill_tree(driver.process) for driver in stage.drivers])
        if proxy and swift:
            stage.swift, stage.proxy, stage.stored = swift, proxy, upload_inputs(stage)
        output = stage.locate_output("undisturbed")
        stage.run_job(output)
        stage.expected = outputs.read_rows(output)
        if stage.stored is not None:
            uris = {path.stem: f"s3://{BUCKET}/images/{path.name}" for path in paths}
            stage.stored_expected = outputs.move_rows(stage.expected, uris)
        yield stage


def upload_inputs(stage: Stage) -> Inputs:
    """Upload images, manifest and checkpoint to the store."""
    store, _ = storage.get_filesystem(f"s3://{BUCKET}")
    store.mkdir(BUCKET)
    uris = [f"s3://{BUCKET}/images/{path.name}" for path in stage.images]
    store.put([str(path) for path in stage.images], uris)
    store.put(stage.local.checkpoint, f"s3://{BUCKET}/checkpoint", recursive=True)
    manifest = f"s3://{BUCKET}/manifest.parquet"
    rows = [
        ManifestRow(path.stem, uri, 80, 60, None)
        for path, uri in zip(stage.images, uris, strict=True)
    ]
    write_manifest(manifest, rows, None)
    return Inputs(manifest, f"s3://{BUCKET}/checkpoint", f"s3://{BUCKET}")
