import json

import pytest

from pipeline.analysis.score_thresholds import (
    ScoreThresholds,
    choose_thresholds,
    read_thresholds,
    write_thresholds,
)
from pipeline.errors import InvalidConfiguration, StorageError
from tests.analysis.scenes import make_scenes
from tests.analysis.test_operating_points import NOWHERE, A, compute


def test_thresholds_are_read_back(tmp_path):
    thresholds = ScoreThresholds(0.25, {"cat": 0.5, "</script>": 0.125})
    write_thresholds(f"{tmp_path}/thresholds.json", thresholds)
    restored = read_thresholds(f"{tmp_path}/thresholds.json")
    assert restored == thresholds
    assert (restored.get_threshold("cat"), restored.get_threshold("cow")) == (0.5, 0.25)
    assert json.loads((tmp_path / "thresholds.json").read_text())["overall"] == 0.25


def test_no_best_score_keeps_everything(tmp_path):
    write_thresholds(f"{tmp_path}/t.json", ScoreThresholds(None, {}))
    assert read_thresholds(f"{tmp_path}/t.json").get_threshold("cat") is None


def test_classes_without_true_detections_get_the_overall_score():
    scenes = make_scenes(
        1,
        ("cat", "dog"),
        [(0, "cat", A), (0, "dog", A)],
        [(0, "cat", 0.5, A), (0, "dog", 0.9, NOWHERE)],
    )
    assert choose_thresholds(compute(scenes)) == ScoreThresholds(0.5, {"cat": 0.5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object"),
        ('{"overall": "high"}', "overall"),
        ('{"overall": NaN}', "overall"),
        ('{"overall": 0.5, "per_class": {"cat": true}}', "per_class.cat"),
        ('{"overall": 0.5, "minimum": 1}', "minimum"),
        ("{", "holds no thresholds"),
    ],
)
def test_anything_else_is_rejected_by_name(tmp_path, text, message):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(InvalidConfiguration, match=message) as error:
        read_thresholds(f"{tmp_path}/t.json")
    assert "t.json" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StorageError, match="absent"):
        read_thresholds(f"{tmp_path}/absent.json")
