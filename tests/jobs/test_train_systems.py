"""Options of `train --system` that are rejected in one line, before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.drawn_images import write_random_checkpoint
from tests.jobs.command import read_error_output, run_job
from tests.training.training_dataset import write_dataset


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--system", "rcnn", "--epochs", "3"),
            "no --epochs: leave it out; --fine-tune-steps sets",
        ),
        (("--system", "rcnn", "--workers", "2"), "--system rcnn has no --workers"),
        (("--system", "rcnn", "--plan"), "--system rcnn has no --plan"),
        (("--system", "sppnet"), "--system sppnet needs --weights"),
        (("--system", "fast-rcnn-svm"), "needs --weights: the checkpoint folder"),
        (("--system", "fast-rcnn-svm", "--learning-rate", "1"), "has no --learning-rate"),
        (("--window-size", "64"), "--system fast-rcnn has no --window-size"),
        (("--system", "rcnn", "--window-context", "200"), "--window-context is 200"),
        (("--system", "rcnn", "--pyramid", "2"), "--system rcnn has no --pyramid"),
        (("--system", "rcnn", "--precision", "fp16"), "--precision is fp16, which --system rcnn"),
        (("--system", "sppnet", "--flip", "0.1"), "--system sppnet has no --flip"),
    ],
)
def test_options_that_a_system_does_not_have_are_rejected(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "data", images=2)
    code = run_job(
        *("train", "--manifest", manifest, "--proposals", proposals, "--recipe", "tiny"),
        *(*options, "--output", str(tmp_path / "out")),
    )
    assert code == 2
    assert message in read_error_output(capsys)
    assert not (tmp_path / "out" / "run.json").exists()


def test_svms_need_a_fast_rcnn_of_the_same_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "data", images=2)
    checkpoint = write_random_checkpoint(tmp_path)
    code = run_job(
        *("train", "--manifest", manifest, "--proposals", proposals, "--recipe", "tiny"),
        *("--system", "fast-rcnn-svm", "--weights", checkpoint),
        *("--output", str(tmp_path / "out")),
    )
    assert code == 2
    assert "is no Fast R-CNN of the manifest's classes" in read_error_output(capsys)
