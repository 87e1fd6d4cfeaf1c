"""What a detector actor checks when it loads, in this process."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import manifests, store_options
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect import detector_loading
from pipeline.engine.detect.actor import DetectorActor
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.resources import ActorResources
from pipeline.errors import InvalidCheckpoint, NoCapacity
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import write_damaged_manifest, write_random_checkpoint

actor_class: Any = DetectorActor.__ray_metadata__.modified_class  # type: ignore[attr-defined]


def _plan(folder: Path, gpus: float = 0.0) -> DetectionPlan:
    checkpoint_uri = write_random_checkpoint(folder)
    return DetectionPlan(
        manifests.open_manifest(write_damaged_manifest(folder)),
        str(folder / "out"),
        fingerprint="0" * 64,
        checkpoint_uri=checkpoint_uri,
        checkpoint=read_checkpoint_record(checkpoint_uri),
        settings=DetectionSettings(),
        options=RunOptions(),
        proposals=ProposalSettings(),
        resources=ActorResources(gpus, threads=1),
        stores=store_options.get_options(),
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_does_not_work_is_reported_with_its_node(tmp_path: Path) -> None:
    actor = actor_class(_plan(tmp_path, gpus=1.0), "fp32")
    with pytest.raises(NoCapacity, match=rf"cuda does not work on {platform.node()}: "):
        actor.load()


class Stopped(Exception):
    """The end of loading, before the device is needed."""


@pytest.mark.parametrize(("gpus", "shares"), [(0.5, [0.5]), (1.0, [])])
def test_a_detector_with_a_share_of_a_gpu_takes_no_more_of_its_memory(
    gpus: float, shares: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited: list[float] = []

    def limit_memory(device: torch.device, share: float) -> None:
        assert device.type == "cuda"
        limited.append(share)

    def load_predictor(*_: Any) -> None:
        raise Stopped

    plan = _plan(tmp_path, gpus)
    monkeypatch.setattr("pipeline.detector.device_memory.limit_memory", limit_memory)
    monkeypatch.setattr(detector_loading, "_load_predictor", load_predictor)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)  # no GPU is needed
    with pytest.raises(Stopped):
        detector_loading.load_detector(plan, "fp32")
    assert limited == shares


def test_a_checkpoint_that_changed_since_the_run_started_is_rejected(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert actor_class(plan, "fp32").load() == "fp32"
    changed = dataclasses.replace(plan.checkpoint, weights_sha256="0" * 64)
    actor = actor_class(dataclasses.replace(plan, checkpoint=changed), "fp32")
    with pytest.raises(InvalidCheckpoint, match="has changed since the run started"):
        actor.load()
