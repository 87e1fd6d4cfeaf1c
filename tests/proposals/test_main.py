import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline import imaging
from pipeline.errors import InvalidConfiguration, UnreadableImage
from pipeline.proposals.__main__ import ProposeOptions, main
from tests.proposals.sample_images import draw_blocks


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(imaging.encode_png(draw_blocks(1, 60, 80)))
    return str(path)


@pytest.mark.parametrize(("name", "kind"), [("out.png", "PNG"), ("out.JPG", "JPEG")])
def test_the_best_boxes_are_drawn(image, tmp_path, name, kind, capsys):
    main(ProposeOptions(image, draw=str(tmp_path / name), top=3, strategy="single", min_side=1))
    encoded = (tmp_path / name).read_bytes()
    with Image.open(io.BytesIO(encoded)) as drawn:
        assert drawn.format == kind
    assert (imaging.decode_image(encoded) != draw_blocks(1, 60, 80)).any()
    assert "drew the best 3" in capsys.readouterr().out


def test_boxes_are_printed_without_draw(image, capsys):
    main(ProposeOptions(image, top=2, max_boxes=5, strategy="single", min_side=1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 boxes in 80x60 pixels"
    assert len(lines) == 3
    assert len(np.fromstring(lines[1], sep=" ")) == 4


def test_the_drawing_can_be_on_another_store(image):
    main(ProposeOptions(image, draw="memory://drawn/out.png", strategy="single"))
    import fsspec

    assert imaging.decode_image(fsspec.filesystem("memory").cat_file("/drawn/out.png")).shape == (
        60,
        80,
        3,
    )


def test_invalid_options_and_images_are_rejected_by_name(image, tmp_path):
    with pytest.raises(InvalidConfiguration, match=r"\.gif"):
        main(ProposeOptions(image, draw="out.gif"))
    with pytest.raises(InvalidConfiguration, match="--top"):
        main(ProposeOptions(image, top=-1))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        main(ProposeOptions(str(broken)))


def test_an_error_prints_one_line_and_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "pipeline.proposals", str(tmp_path / "missing.jpg")]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr.startswith("error: ")
    assert "missing.jpg" in completed.stderr
    assert len(completed.stderr.splitlines()) == 1
