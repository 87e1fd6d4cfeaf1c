"""The line that tells how far training is."""

from __future__ import annotations

import logging
from unittest.mock import MagicMock

import pytest

from pipeline.engine.train import board as training_board
from pipeline.engine.train.board import TrainingProgress
from pipeline.training.logs import Record


def record(step: int, **changed: float) -> Record:
    told = {
        "step": step,
        "epoch": step / 100,
        "loss": 1.5,
        "loss_class": 1.0,
        "loss_box": 0.5,
        "learning_rate": 0.001,
        "images_per_second": 8.0,
        "data_wait": 0.04,
        "skipped": 0,
        **changed,
    }
    known = {name: told.get(name, 0) for name in Record.__dataclass_fields__}
    return Record(**{**known, "voc07_map50": changed.get("voc07_map50")})  # type: ignore[arg-type]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[str]:
    monkeypatch.setattr(training_board, "LINE_EVERY", 0.0)
    caplog.set_level(logging.INFO, "pipeline.engine.train.board")
    clock = iter(range(100, 1000, 10))
    monkeypatch.setattr(training_board, "monotonic", lambda: float(next(clock)))
    progress = TrainingProgress(None, 400)
    for told in (
        record(20),
        record(40, skipped=2),
        record(20),
        record(400, voc07_map50=0.5),
    ):
        progress._show(told)
    assert progress.last is not None
    assert progress.last.step == 400
    return [entry.message for entry in caplog.records]


def test_it_tells_losses_rate_speed_waiting_and_the_time_left(lines: list[str]) -> None:
    assert lines[0] == (
        "train: step 20/400, epoch 0.20, loss 1.500 (class 1.000, box 0.500), lr 1.00e-03, "
        "8.0 images/s, 4% waiting"
    )
    assert lines[1].endswith("4% waiting, 2 skipped, 3:00 left")  # 20 steps took 10 s: 360 in 180
    assert lines[2] == "training went on from step 20 after a worker was lost"
    assert lines[-1].endswith("validation mAP 0.500, 0:00 left")


def test_a_long_silence_is_told_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipeline.engine.train.board")
    clock = [0.0]
    waiting: list[Record] = []
    monkeypatch.setattr(training_board, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training_board.ray, "get", lambda answer, timeout: (waiting[:], None))
    progress = TrainingProgress(MagicMock(), 400)

    def lines_at(now: float) -> int:
        clock[0] = now
        assert progress._update()
        return len(caplog.records)

    assert [lines_at(now) for now in (50.0, 61.0, 100.0, 122.0)] == [0, 1, 1, 2]
    assert caplog.messages[0].startswith("no record for 60 s: workers start, wait for room")
    waiting.append(record(20))
    assert lines_at(200.0) == 3
    waiting.clear()
    assert lines_at(250.0) == 3, "the record ended the silence"
