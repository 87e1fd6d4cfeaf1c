import sys

import numpy as np
import pytest

from pipeline import imaging
from pipeline.detector import __main__ as command
from pipeline.detector import checkpoint
from tests.detector.networks import SMALL, random_boxes, random_image, random_model


@pytest.fixture
def folder(tmp_path):
    image = random_image(np.random.default_rng(0), 60, 80)
    (tmp_path / "p.png").write_bytes(imaging.encode_png(image))
    checkpoint.save(str(tmp_path / "model"), random_model(), SMALL)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["detector", *map(str, arguments)])
    command.run()


def test_prints_and_draws(folder, monkeypatch, capsys):
    drawn = folder / "out.png"
    boxes = random_boxes(np.random.default_rng(0), 20, 60, 80)
    # Its own tests look at selective search; here it would be compiled in a fresh checkout.
    monkeypatch.setattr(command, "selective_search", lambda *args, **options: boxes)
    run(
        monkeypatch,
        folder / "p.png",
        "--checkpoint",
        folder / "model",
        "--draw",
        drawn,
        "--shown-from",
        0.1,
    )
    printed = capsys.readouterr().out
    assert any(name in printed for name in ("cat", "dog", "owl"))
    assert "detections, from" in printed
    before = imaging.decode((folder / "p.png").read_bytes())
    after = imaging.decode(drawn.read_bytes())
    assert after.shape == before.shape
    assert not np.array_equal(after, before)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nowhere.png", "--checkpoint", "model"), "nowhere.png"),
        (("p.png", "--checkpoint", "nowhere"), "nowhere"),
        (("p.png", "--checkpoint", "model", "--draw", "out.txt"), "out.txt"),
        (("model/model.json", "--checkpoint", "model"), "model.json: not an image"),
        (("p.png", "--checkpoint", "model", "--device", "abacus"), "abacus"),
        (("p.png", "--checkpoint", "model", "--nms-iou", "3"), "NMS"),
    ],
)
def test_errors_are_one_line(folder, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert named in message
