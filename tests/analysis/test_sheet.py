import numpy as np
import pytest

from pipeline import imaging
from pipeline.analysis.sheet import image_sheet
from pipeline.errors import UnreadableDataset
from tests.outputs import Failure, an_object, write_annotations, write_detections

A, B = (10, 10, 40, 40), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path):
    uris = {}
    for shade, name in enumerate(("one", "two", "three")):
        uris[name] = str(tmp_path / f"{name}.png")
        grey = np.full((100, 100, 3), 90 + 30 * shade, np.uint8)
        (tmp_path / f"{name}.png").write_bytes(imaging.encode_png(grey))
    objects = {name: [an_object("cat", A)] for name in (*uris, "gone")}
    uris["gone"] = str(tmp_path / "gone.png")
    return write_annotations(str(tmp_path / "m.parquet"), objects, ("cat",), uris=uris)


@pytest.fixture
def detections(tmp_path, manifest):
    rows = {
        "one": [("cat", 0.9, B), ("cat", 0.2, A)],
        "two": [],
        "three": Failure(),
        "gone": Failure(),
    }
    return write_detections(str(tmp_path / "d"), manifest, rows, ("cat",))


def test_draws_the_images_that_can_be_read(manifest, detections):
    drawn = image_sheet(detections, manifest)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (360, 3 * 360, 3)  # three of four beside one another
    palette_red = (drawn == (0xE6, 0x19, 0x4B)).all(axis=2).sum()
    assert palette_red > 4 * 100  # the one box over min_score, its sides over 100 pixels long


def test_low_scores_are_left_out(manifest, detections):
    def coloured(min_score):
        drawn = image_sheet(detections, manifest, min_score=min_score).astype(int)
        return int((drawn.max(axis=2) - drawn.min(axis=2) > 60).sum())

    assert coloured(0.95) == 0 < coloured(0.5) < coloured(0.1)


def test_the_seed_chooses(manifest, detections):
    one = [image_sheet(detections, manifest, 1, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert one[0].shape == (360, 360, 3)
    np.testing.assert_array_equal(one[0], one[1])
    assert any((one[0] != other).any() for other in one[2:])


def test_no_image_at_all(tmp_path):
    manifest = write_annotations(str(tmp_path / "n.parquet"), {"gone": []}, ("cat",))
    uri = write_detections(str(tmp_path / "e"), manifest, {"gone": []}, ("cat",))
    with pytest.raises(UnreadableDataset, match="none of the images"):
        image_sheet(uri, manifest)
