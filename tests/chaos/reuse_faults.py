"""Runs that take over rows of an earlier output: their driver or a node is killed, or their store fails.

The earlier output has every second image, so that each shard mixes rows that are taken over and rows that
are computed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos import outputs
from tests.chaos.outcome import Outcome
from tests.chaos.process_faults import replace_node
from tests.chaos.stage import Inputs, Job, Stage
from tests.chaos.store_faults import IMAGE_SECONDS, disturb_store
from tests.chaos.trial import Trial
from tests.engine.drawn_images import draw_images

PROPOSED_IMAGES = 1200
"""Images of the propose job: fewer would be done before a node can be killed."""


def kill_reusing_driver(stage: Stage) -> Outcome:
    """SIGKILL a detect job with `--reuse` after a third of the parts; the same command does the rest."""
    earlier = _run_half(stage, stage.local, _name_images(stage, stage.local))
    trial = Trial(stage, "driver_killed_reuse", "--reuse", earlier)
    trial.wait_for_third()
    with trial.hold_workers():  # else they may write all parts of a short run
        trial.kill_driver()
    trial.rerun_until_done()
    return trial.compare(note=_describe_reuse(trial), allowed_reruns=1)


def kill_node_of_reusing_run(stage: Stage) -> Outcome:
    """SIGKILL one of two raylets under a propose job with `--reuse`; the run uses one that joins."""
    paths = draw_images(stage.folder / "proposed-images", PROPOSED_IMAGES)
    rows = [ManifestRow(path.stem, str(path), 80, 60, None) for path in paths]
    manifest = str(stage.folder / "proposed.parquet")
    write_manifest(manifest, rows, None)
    inputs = replace(stage.local, manifest=manifest)
    undisturbed = stage.run_job(stage.locate_output("proposed"), inputs=inputs, job="propose")
    trial = Trial(
        stage,
        "node_killed_propose_reuse",
        "--reuse",
        _run_half(stage, inputs, rows, job="propose"),
        inputs=inputs,
        expected=outputs.read_rows(undisturbed.output),
        job="propose",
    )
    trial.wait_for_third()
    replace_node(trial, ["propose_piece"])
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare(note=_describe_reuse(trial))


def disturb_store_of_reusing_run(stage: Stage) -> Outcome:
    """The store, which also has the earlier output, answers with 503 for a while."""
    assert stage.stored is not None
    earlier = _run_half(stage, stage.stored, _name_images(stage, stage.stored))
    options = ("--reuse", earlier, *IMAGE_SECONDS)
    trial = Trial(stage, "store_503_reuse", *options, inputs=stage.stored)
    affected = disturb_store(trial, "503")
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare(note=f"{affected} requests affected; {_describe_reuse(trial)}")


def _name_images(stage: Stage, inputs: Inputs) -> list[ManifestRow]:
    """The rows of the stage's manifest, on disk or in the store."""
    folder = f"{inputs.outputs}/images"
    return [ManifestRow(path.stem, f"{folder}/{path.name}", 80, 60, None) for path in stage.images]


def _run_half(
    stage: Stage, inputs: Inputs, rows: Sequence[ManifestRow], job: Job = "detect"
) -> str:
    """Run a job on every second image, and return its output."""
    manifest = f"{inputs.outputs}/half-{job}.parquet"
    write_manifest(manifest, rows[::2], None)
    output = stage.locate_output(f"half-{job}", inputs)
    stage.run_job(output, inputs=replace(inputs, manifest=manifest), job=job)
    return output


def _describe_reuse(trial: Trial) -> str:
    """How many rows the last start of a run took over.

    Raises:
        AssertionError: none.
    """
    log = trial.driver.read_log()
    match = re.search(r"([1-9]\d*) rows were taken over from --reuse", log)
    if match is None:
        raise AssertionError(f"{trial.fault}: no row was taken over:\n{log[-2000:]}")
    return f"{match[1]} rows taken over"
