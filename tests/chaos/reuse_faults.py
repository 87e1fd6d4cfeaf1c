"""A driver that is killed while it takes over rows of an earlier output."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos.outcome import Outcome, Trial
from tests.chaos.stage import Stage


def kill_reusing_driver(stage: Stage) -> Outcome:
    """SIGKILL a driver with `--reuse` after a third of the parts; the same command does the rest.

    The earlier output has every second image, so that each shard mixes rows that are taken over and rows that
    are computed.
    """
    manifest = str(stage.folder / "half.parquet")
    rows = [ManifestRow(path.stem, str(path), 80, 60, None) for path in stage.images[::2]]
    write_manifest(manifest, rows, None)
    earlier = stage.locate_output("half")
    stage.run_job(earlier, inputs=dataclasses.replace(stage.local, manifest=manifest))
    trial = Trial(stage, "driver_killed_reuse", "--reuse", earlier)
    trial.wait_for_third()
    os.kill(trial.driver.process.pid, signal.SIGKILL)
    trial.wait_for_end()
    time.sleep(3)  # tasks in flight may still write
    trial.remember_parts()
    trial.rerun_until_done()
    if "rows were taken over from --reuse" not in trial.driver.read_log():
        raise AssertionError(f"no row was taken over:\n{trial.driver.read_log()[-2000:]}")
    return trial.compare(allowed_reruns=1)
