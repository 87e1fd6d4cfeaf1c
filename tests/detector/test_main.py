import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline import imaging
from pipeline.detector.__main__ import run_command_line
from pipeline.detector.checkpoint import save_checkpoint
from tests.detector.networks import (
    SMALL,
    build_random_network,
    draw_random_boxes,
    draw_random_image,
)


@pytest.fixture
def folder(tmp_path):
    image = draw_random_image(np.random.default_rng(0), 60, 80)
    (tmp_path / "p.png").write_bytes(imaging.encode_png(image))
    save_checkpoint(str(tmp_path / "model"), build_random_network(), SMALL)
    return tmp_path


def run_with(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["detector", *map(str, arguments)])
    run_command_line()


def test_the_command_prints_and_draws_detections(folder, monkeypatch, capsys):
    drawn = folder / "out.png"
    boxes = draw_random_boxes(np.random.default_rng(0), 20, 60, 80)
    # Selective search has its own tests; a fresh checkout would have to compile it here.
    monkeypatch.setattr(
        "pipeline.detector.__main__.selective_search", lambda *args, **options: boxes
    )
    run_with(
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
    before = imaging.decode_image((folder / "p.png").read_bytes())
    after = imaging.decode_image(drawn.read_bytes())
    assert after.shape == before.shape
    assert not np.array_equal(after, before)


def test_an_image_is_detected_in_as_viewers_show_it_on_request(folder, monkeypatch, capsys):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(folder / "p.png") as stored:
        stored.save(folder / "turned.jpg", exif=exif)
    shapes = []

    def propose(image, *arguments, **options):
        shapes.append(image.shape[:2])
        return draw_random_boxes(np.random.default_rng(0), 20, *image.shape[:2])

    monkeypatch.setattr("pipeline.detector.__main__.selective_search", propose)
    for exif_option in ("ignore", "apply"):
        model = ("--checkpoint", folder / "model", "--rule", "paper")
        run_with(monkeypatch, folder / "turned.jpg", *model, "--exif", exif_option)
    assert shapes == [(60, 80), (80, 60)]
    assert capsys.readouterr().out.count("detections, from 20 proposals") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere.png", "--checkpoint", "model"), "nowhere.png"),
        (("p.png", "--checkpoint", "nowhere"), "nowhere"),
        (("p.png", "--checkpoint", "model", "--draw", "out.txt"), "out.txt"),
        (("model/model.json", "--checkpoint", "model"), "model.json: not an image"),
        (("p.png", "--checkpoint", "model", "--device", "abacus"), "abacus"),
        (("p.png", "--checkpoint", "model", "--nms-iou", "3"), "--nms-iou is 3.0"),
    ],
)
def test_an_error_is_one_line_and_exits_with_2(folder, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        run_with(monkeypatch, *arguments)
    assert stopped.value.code == 2
    (message,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")
    ]
    assert expected in message
    assert "Traceback" not in message
