import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

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


def test_an_image_is_turned_by_its_exif_orientation_on_request(tmp_path, capsys):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(draw_blocks(1, 60, 80)).save(path, exif=exif)
    main(ProposeOptions(str(path), strategy="single"))
    main(ProposeOptions(str(path), strategy="single", exif="apply"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" in ")[2] for line in lines if " in " in line] == [
        "80x60 pixels",
        "60x80 pixels",
    ]


def test_a_truncated_image_is_accepted_on_request(tmp_path, capsys):
    path = tmp_path / "short.jpg"
    path.write_bytes(imaging.encode_jpeg(draw_blocks(1, 60, 80))[:-40])
    with pytest.raises(UnreadableImage, match="truncated"):
        main(ProposeOptions(str(path), strategy="single"))
    main(ProposeOptions(str(path), strategy="single", truncated="accept"))
    assert "in 80x60 pixels" in capsys.readouterr().out


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
