"""The lines at the end of a training."""

from __future__ import annotations

from dataclasses import replace

from pipeline.engine.train.training_summary import TrainingSummary


def test_a_finished_training_differs_from_one_whose_network_was_missing() -> None:
    written_again = TrainingSummary("out", 10, 8, None, seconds=3.0)
    assert "network is written again" in written_again.format_lines()[0]
    assert "nothing to do" in replace(written_again, is_new=False).format_lines()[0]
