"""Options of detection that do not suit a checkpoint or its proposals; no Ray is started."""

from __future__ import annotations

import logging

import pytest

from pipeline.detector.architecture import Architecture
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.checkpoint_record import CheckpointRecord
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.preprocessing import Preprocessing
from pipeline.engine.detect import detection_inputs
from pipeline.errors import InvalidConfiguration

STOPPING = DetectionSettings(cascade=CascadeSettings(stop_after=2))


def make_record(system: dict | None) -> CheckpointRecord:
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    return CheckpointRecord(
        Architecture(("cat",), "tiny"), preprocessing, "0" * 64, 1, system=system
    )


@pytest.mark.parametrize("name", ["rcnn", "sppnet", "fast-rcnn-svm"])
def test_only_fast_rcnn_stops_early(name: str) -> None:
    from pipeline.baselines.settings import BaselineSettings

    system = BaselineSettings().describe_system(name).to_json()  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match=f"{name}: leave out --stop-after"):
        detection_inputs._check_system(make_record(system), "file:///checkpoint", STOPPING)
    detection_inputs._check_system(make_record(system), "file:///checkpoint", DetectionSettings())
    detection_inputs._check_system(make_record(None), "file:///checkpoint", STOPPING)


def test_proposals_that_are_not_ranked_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        detection_inputs._warn_of_other_orders({"ranking": {"name": "learned"}})
        assert not caplog.records
        detection_inputs._warn_of_other_orders({"algorithm": "selective_search"})
    assert "not in a learned order" in caplog.text
