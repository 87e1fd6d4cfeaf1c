"""The settings of R-CNN and SPPnet: ranges, and the record of a checkpoint."""

from __future__ import annotations

import pytest

from pipeline.baselines.settings import (
    BaselineSettings,
    RegionSettings,
    System,
    read_region_settings,
)
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_size": 16}, "--window-size is 16"),
        ({"window_size": 40, "window_context": 20}, "--window-context is 20, expected less"),
        ({"pyramid": ()}, r"--pyramid is \(\)"),
        ({"pyramid": (6, 0)}, "--pyramid is"),
        ({"scales": (480, 3000)}, "--scales are"),
        ({"svm_c": 0.0}, "--svm-c is 0.0"),
        ({"mining_passes": 0}, "--mining-passes is 0"),
        ({"regression_iou": 1.5}, "--regression-iou is 1.5"),
    ],
)
def test_values_out_of_range_are_rejected_by_option(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        BaselineSettings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("system", ["rcnn", "sppnet", "fast-rcnn-svm"])
def test_a_record_gives_the_settings_back(system: System) -> None:
    settings = BaselineSettings(window_size=100, window_context=7).describe_system(system)
    assert RegionSettings.from_json(settings.to_json()) == settings
    assert read_region_settings(settings.to_json(), "out") == settings


def test_the_record_of_fast_rcnn_names_no_system() -> None:
    assert read_region_settings(None, "out") is None


@pytest.mark.parametrize(
    "system",
    [
        {"name": "yolo"},
        {},
        {"name": "rcnn", "window_size": 1e9},
        {"name": "rcnn", "window_size": 224, "window_context": 16, "extra": 1},
        {"name": "sppnet", "pyramid": [6, "3"], "scales": [480], "scale_cap": 1000},
        {"name": "sppnet", "pyramid": [6], "scales": [], "scale_cap": 1000},
    ],
)
def test_a_damaged_record_is_an_unusable_checkpoint(system: dict[str, object]) -> None:
    with pytest.raises(InvalidCheckpoint, match="out is a checkpoint of an unknown system"):
        read_region_settings(system, "out")
