import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipeline import imaging
from pipeline.errors import InvalidConfiguration, UnreadableImage
from pipeline.proposals.__main__ import Options, main
from tests.proposals.sample_images import blocks


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(imaging.encode_png(blocks(1, 60, 80)))
    return str(path)


@pytest.mark.parametrize(("name", "kind"), [("out.png", "PNG"), ("out.JPG", "JPEG")])
def test_it_draws_the_best_boxes(image, tmp_path, name, kind, capsys):
    main(Options(image, draw=str(tmp_path / name), top=3, strategy="single", min_side=1))
    data = (tmp_path / name).read_bytes()
    with Image.open(io.BytesIO(data)) as drawn:
        assert drawn.format == kind
    assert (imaging.decode(data) != blocks(1, 60, 80)).any()
    assert "drew the best 3" in capsys.readouterr().out


def test_it_prints_boxes_where_nothing_is_drawn(image, capsys):
    main(Options(image, top=2, max_boxes=5, strategy="single", min_side=1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 boxes in 80x60 pixels"
    assert len(lines) == 3
    assert len(np.fromstring(lines[1], sep=" ")) == 4


def test_it_works_on_any_store(image):
    main(Options(image, draw="memory://drawn/out.png", strategy="single"))
    import fsspec

    assert imaging.decode(fsspec.filesystem("memory").cat_file("/drawn/out.png")).shape == (
        60,
        80,
        3,
    )


def test_bad_options_and_images_are_named(image, tmp_path):
    with pytest.raises(InvalidConfiguration, match=r"\.gif"):
        main(Options(image, draw="out.gif"))
    with pytest.raises(InvalidConfiguration, match="--top"):
        main(Options(image, top=-1))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        main(Options(str(broken)))


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "pipeline.proposals", str(tmp_path / "missing.jpg")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "missing.jpg" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
