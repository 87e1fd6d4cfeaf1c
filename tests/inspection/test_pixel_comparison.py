"""The correlation of small copies, against hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.inspection.pixel_comparison import correlate
from pipeline.inspection.signature import PIXELS_SIDE, VIEWS
from tests.inspection.signed_images import draw_smooth

RAMP = np.tile(np.arange(PIXELS_SIDE, dtype=np.uint8) * 4, (PIXELS_SIDE, 1))


def _correlate(first: np.ndarray, second: np.ndarray, view: int = 0) -> float:
    return float(correlate(first[None], second[None], np.array([view]))[0])


def test_brightness_and_contrast_do_not_count() -> None:
    assert _correlate(RAMP, RAMP // 2 + 60) == pytest.approx(1, abs=1e-3)


def test_the_opposite_is_minus_one_and_mirrored_one() -> None:
    assert _correlate(RAMP, RAMP[:, ::-1]) == pytest.approx(-1)
    assert VIEWS[1].is_mirrored
    assert _correlate(RAMP, RAMP[:, ::-1], view=1) == pytest.approx(1)


def test_a_flat_image_correlates_with_nothing() -> None:
    assert _correlate(RAMP, np.full_like(RAMP, 7)) == 0


def test_a_view_is_compared_with_all_of_the_other_image() -> None:
    image = Image.fromarray(draw_smooth(4, 320, 320)).convert("L")
    window = image.crop((16, 16, 320, 320))
    first, second = (
        np.asarray(part.resize((PIXELS_SIDE, PIXELS_SIDE), Image.Resampling.BOX))
        for part in (image, window)
    )
    view = next(i for i, v in enumerate(VIEWS) if (v.left, v.top, v.size) == (0.05, 0.05, 0.95))
    assert _correlate(first, second, view) > 0.99 > _correlate(first, second)
