import numpy as np
import pytest

from pipeline import imaging
from pipeline.analysis.detection_sheet import draw_detection_sheet
from pipeline.errors import UnreadableDataset
from tests.outputs import FailedImage, make_object, write_annotations, write_detections

A, B = (10, 10, 40, 40), (50, 50, 90, 90)


@pytest.fixture
def manifest(tmp_path):
    uris = {}
    for shade, name in enumerate(("one", "two", "three")):
        uris[name] = str(tmp_path / f"{name}.png")
        grey = np.full((100, 100, 3), 90 + 30 * shade, np.uint8)
        (tmp_path / f"{name}.png").write_bytes(imaging.encode_png(grey))
    objects = {name: [make_object("cat", A)] for name in (*uris, "gone")}
    uris["gone"] = str(tmp_path / "gone.png")
    return write_annotations(str(tmp_path / "m.parquet"), objects, ("cat",), uris=uris)


@pytest.fixture
def detections(tmp_path, manifest):
    rows = {
        "one": [("cat", 0.9, B), ("cat", 0.2, A)],
        "two": [],
        "three": FailedImage(),
        "gone": FailedImage(),
    }
    return write_detections(str(tmp_path / "d"), manifest, rows, ("cat",))


def test_the_sheet_shows_the_readable_images(manifest, detections):
    sheet = draw_detection_sheet(detections, manifest)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (360, 3 * 360, 3)  # three images in one row
    palette_red = (sheet == (0xE6, 0x19, 0x4B)).all(axis=2).sum()
    assert palette_red > 4 * 100  # the one box over min_score, its sides over 100 pixels long


def test_detections_with_low_scores_are_left_out(manifest, detections):
    def count_coloured(min_score):
        sheet = draw_detection_sheet(detections, manifest, min_score=min_score).astype(int)
        return int((sheet.max(axis=2) - sheet.min(axis=2) > 60).sum())

    assert count_coloured(0.95) == 0 < count_coloured(0.5) < count_coloured(0.1)


def test_the_seed_chooses_the_images(manifest, detections):
    sheets = [draw_detection_sheet(detections, manifest, 1, seed=seed) for seed in (0, 0, 1, 2, 3)]
    assert sheets[0].shape == (360, 360, 3)
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert any((sheets[0] != other).any() for other in sheets[2:])


def test_a_dataset_without_readable_images_is_rejected(tmp_path):
    manifest = write_annotations(str(tmp_path / "n.parquet"), {"gone": []}, ("cat",))
    uri = write_detections(str(tmp_path / "e"), manifest, {"gone": []}, ("cat",))
    with pytest.raises(UnreadableDataset, match="none of the images"):
        draw_detection_sheet(uri, manifest)
