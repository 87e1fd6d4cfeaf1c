"""The lines at the end of a training."""

from __future__ import annotations

from dataclasses import replace

from pipeline.engine.train.training_summary import TrainingSummary


def test_a_finished_training_differs_from_one_whose_network_was_missing() -> None:
    finished = TrainingSummary("out", 10, 8, None, 0.0)
    assert "nothing to do" in finished.format_lines()[0]
    assert "network is written again" in replace(finished, seconds=3.0).format_lines()[0]
