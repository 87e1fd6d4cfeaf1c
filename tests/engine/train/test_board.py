"""The progress lines of a training."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline.engine.capacity import Host
from pipeline.engine.node_versions import NodeVersions, VersionCheck
from pipeline.engine.train import board
from pipeline.engine.train.board import ProgressBoard, TrainingProgress
from pipeline.training.logs import TrainingRecord
from tests.project_log import read_project_log
from tests.training.training_records import make_record


def record(step: int, **changed: Any) -> TrainingRecord:
    return make_record(step, **{"images_per_second": 8.0, **changed})


def test_samples_tell_images_and_how_long_workers_waited() -> None:
    logs = MagicMock(elapsed=12.0)
    logs.is_sample_due.side_effect = [True, False]
    progress = TrainingProgress(None, 400, workers=2, logs=logs)
    progress._hosts = [Host("0123456789abcdef" * 3, 4.0, 1.0, 1e9)]
    for posted in (
        record(20, images=80, data_wait=0.5, bytes_read=1000),
        record(40, images=80, data_wait=0.0, bytes_read=200),
        record(400, images=1440, data_wait=0.0, bytes_read=30),
    ):
        progress._sample(posted)
    first, last = (call.args[0] for call in logs.add_sample.call_args_list)
    assert (first.images, first.others["step"]) == (80, 20)
    assert first.stages["train"].slot_seconds == 20.0  # 80 images at 8 per second, two workers
    assert first.stages["train"].busy_seconds == 10.0
    assert (last.images, last.others["step"], last.others["loss"]) == (1600, 400, 1.5)
    assert last.stages["train"].busy_seconds == pytest.approx(10 + 20 + 360)
    assert (first.others["bytes_read"], last.others["bytes_read"]) == (1000, 1230)
    assert list(last.others["nodes"].values()) == [{"cpus": 4.0, "gpus": 1.0}]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    monkeypatch.setattr(board, "LINE_EVERY", 0.0)
    caplog.set_level(logging.INFO, "pipeline.engine.train.board")
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr(board, "monotonic", lambda: float(next(clock)))
    progress = TrainingProgress(None, 400)
    for posted in (
        record(20),
        record(40, skipped=2),
        record(20),
        record(400, voc07_map50=0.5),
    ):
        progress._log_record(posted)
    assert progress.last is not None
    assert progress.last.step == 400
    return read_project_log(caplog)


def test_a_line_gives_losses_rate_speed_waiting_and_the_time_left(lines: list[str]) -> None:
    assert lines[0] == (
        "train: step 20/400, epoch 0.20, loss 1.500 (class 1.000, box 0.500), lr 1.00e-03, "
        "8.0 images/s, 4% waiting"
    )
    assert lines[1].endswith("4% waiting, 2 skipped, 3:00 left")  # 20 steps took 10 s: 360 in 180
    assert lines[2] == "training resumed at step 20 after a worker was lost"
    assert lines[-1].endswith("validation mAP 0.500, 0:00 left")


def test_an_added_part_of_the_loss_appears_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.engine.train.board")
    losses = {"total": 2.0, "class": 1.0, "box": 0.5, "mask": 0.5}
    TrainingProgress(None, 400)._log_record(record(20, losses=losses))
    assert "loss 2.000 (class 1.000, box 0.500, mask 0.500)" in read_project_log(caplog)[0]


def test_a_long_silence_is_reported_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.engine.train.board")
    clock = [0.0]
    waiting: list[TrainingRecord] = []
    monkeypatch.setattr(board, "monotonic", lambda: clock[0])
    monkeypatch.setattr(board.ray, "get", lambda answer, timeout: (waiting[:], [], None))
    progress = TrainingProgress(MagicMock(), 400)

    def lines_at(now: float) -> int:
        clock[0] = now
        assert progress._update()
        return len(read_project_log(caplog))

    assert [lines_at(now) for now in (50.0, 61.0, 100.0, 122.0)] == [0, 1, 1, 2]
    assert read_project_log(caplog)[0].startswith(
        "no record for 60 s: workers start, wait for room"
    )
    waiting.append(record(20))
    assert lines_at(200.0) == 3
    waiting.clear()
    assert lines_at(250.0) == 3, "the record ended the silence"


def test_a_training_names_the_nodes_of_its_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pipeline.engine.node_versions")
    posted = ProgressBoard.__ray_metadata__.modified_class()
    posted.add_node(NodeVersions("10.0.0.1", {"numpy": "2.4.6"}))
    posted.add_node(NodeVersions("10.0.0.2", {"numpy": "2.3.1"}))
    progress = TrainingProgress(SimpleNamespace(take=SimpleNamespace(remote=posted.take)), 400)
    progress._versions = VersionCheck({"numpy": "2.4.6"})
    monkeypatch.setattr(board.ray, "get", lambda value, timeout: value)
    assert progress._update()
    assert progress._update()
    (line,) = caplog.messages
    assert line.startswith("node 10.0.0.2 has numpy")
