"""Where the faults happen: a Ray of real raylets, an object store behind a proxy, images, drivers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.manifests import ManifestRow, write_manifest
from tests.chaos import outputs
from tests.chaos.outputs import Row
from tests.chaos.processes import awaited, end
from tests.chaos.proxy import FaultProxy
from tests.chaos.raylets import Raylets
from tests.engine.drawn_images import draw_images, random_checkpoint
from tests.swift import Swift, enter, environment_of, forget_clients, free_port

ROOT = Path(__file__).parents[2]
HOSTILE = Path(__file__).parent / "hostile"
BUCKET = "chaos"
SHARD_SIZE = 4
PROPOSING = (
    *("--strategy", "single", "--max-boxes", "50", "--min-side", "8"),
    *("--shard-size", str(SHARD_SIZE)),
)
DETECTING = ("--precision", "fp32", "--score-threshold", "0.0", "--max-per-image", "5")
SETTINGS = (*PROPOSING, *DETECTING)
DRIVER_SECONDS = 1500


@dataclass
class Driver:
    """A detect job as a process of its own."""

    process: subprocess.Popen[bytes]
    output: str
    log: Path

    def await_parts(self, count: int, beside: Collection[str] = ()) -> dict[str, Any]:
        """Wait until so many parts `beside` some old ones are committed, and tell which.

        Raises:
            RuntimeError: the job ended before.
        """
        found: dict[str, Any] = {}

        def enough() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"the job ended too early:\n{self.told()[-3000:]}")
            found.clear()
            found.update(outputs.parts(self.output))
            return len(found.keys() - set(beside)) >= count

        awaited(enough, f"{count} parts; the job says {self.told()[-2000:]}", DRIVER_SECONDS)
        return dict(found)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self.process.wait(DRIVER_SECONDS)
        except subprocess.TimeoutExpired:
            end(self.process)
            raise RuntimeError(f"the job did not end:\n{self.told()[-3000:]}") from None

    def told(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace")


@dataclass(frozen=True)
class Inputs:
    """A manifest and a checkpoint, and where outputs go: on the local disk or in the store."""

    manifest: str
    checkpoint: str
    outputs: str


@dataclass
class Stage:
    """All that a fault needs."""

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

    @property
    def a_third(self) -> int:
        """Parts after which a fault strikes."""
        return len(self.images) // SHARD_SIZE // 3

    def output(self, name: str, inputs: Inputs | None = None) -> str:
        """The URI of a new output folder."""
        return f"{(inputs or self.local).outputs}/{name}"

    def start(
        self,
        output: str,
        *options: str,
        inputs: Inputs | None = None,
        environment: dict[str, str] | None = None,
        settings: tuple[str, ...] = SETTINGS,
        before: tuple[str, ...] = (),
    ) -> Driver:
        """Start the detect job into an output."""
        inputs = inputs or self.local
        told = (
            "--manifest",
            inputs.manifest,
            "--checkpoint",
            inputs.checkpoint,
            "--output",
            output,
        )
        if "--proposals" in options:
            settings = DETECTING
        log = self.folder / f"driver-{len(self.drivers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*before, sys.executable, str(ROOT / "jobs/detect.py"), *told, *settings, *options],
                cwd=self.folder,
                env=os.environ | (self.cluster.environment if environment is None else environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        driver = Driver(process, output, log)
        self.drivers.append(driver)
        return driver

    def proposals(self) -> str:
        """Proposals of the images on disk, made by the propose job when they are asked for first."""
        output = self.output("proposals")
        if not Path(output).is_dir():
            told = ("--manifest", self.local.manifest, "--output", output, *PROPOSING)
            subprocess.run(
                [sys.executable, str(ROOT / "jobs/propose.py"), *told],
                cwd=self.folder,
                env=os.environ | self.cluster.environment,
                capture_output=True,
                check=True,
            )
        return output

    def run(self, output: str, *options: str, inputs: Inputs | None = None) -> Driver:
        """Run the detect job to its good end.

        Raises:
            RuntimeError: it ended with an error.
        """
        driver = self.start(output, *options, inputs=inputs)
        if code := driver.wait():
            raise RuntimeError(f"exit code {code}:\n{driver.told()[-3000:]}")
        return driver


@contextlib.contextmanager
def set_up(images: int, *, store: bool = True, nodes: int = 2) -> Iterator[Stage]:
    """The stage: `nodes` raylets of one core, images on disk and in a store, an undisturbed run."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PYTHONPATH", f"{HOSTILE}{os.pathsep}{ROOT}")
        patch.delenv("RAY_ADDRESS", raising=False)
        behind = free_port()
        environment = environment_of(behind)
        swift = proxy = None
        if store:
            swift = stack.enter_context(Swift(behind, environment["AWS_SECRET_ACCESS_KEY"]))
            proxy = stack.enter_context(FaultProxy(behind))
            enter(environment, patch)
            forget_clients()
        # Those who work see the store through the proxy, those who look at it do not.
        seen = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"} if proxy else {}
        cluster = stack.enter_context(Raylets(seen))
        for _ in range(nodes):
            cluster.join()
        paths = draw_images(folder / "images", images)
        manifest = str(folder / "manifest.parquet")
        write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
        local = Inputs(manifest, random_checkpoint(folder), str(folder))
        stage = Stage(folder, cluster, paths, local)
        stack.callback(lambda: [end(driver.process) for driver in stage.drivers])
        if proxy and swift:
            stage.swift, stage.proxy, stage.stored = swift, proxy, upload(stage)
        output = stage.output("undisturbed")
        stage.run(output)
        stage.expected = outputs.rows(output)
        uris = {path.stem: f"s3://{BUCKET}/images/{path.name}" for path in paths}
        stage.stored_expected = [row | {"uri": uris[row["image_id"]]} for row in stage.expected]
        yield stage


def upload(stage: Stage) -> Inputs:
    """Put images, manifest and checkpoint into the store."""
    store, _ = storage.filesystem(f"s3://{BUCKET}")
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
