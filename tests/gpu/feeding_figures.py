"""What a core does for the device in a second: decode, resize, propose; how many cores feed one device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pipeline import imaging
from pipeline.detector.preprocessing import Preprocessing
from pipeline.proposals import selective_search
from pipeline.sources.drawn_dataset import draw_image
from tests.gpu.checks import Setting
from tests.gpu.figure_inputs import IMAGE_SIZE
from tests.gpu.timing import time_call


def measure_feeding(
    setting: Setting, figures: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield seconds of a core per image, and the cores that keep up with the fastest predictor of a network.

    Args:
        setting: the device.
        figures: of the predictors, which must be measured before.
    """
    drawn = draw_image(np.random.default_rng(0)).image
    image = imaging.resize(drawn, IMAGE_SIZE[1], IMAGE_SIZE[0])
    encoded = imaging.encode_jpeg(image)
    preprocessing = Preprocessing()
    seconds = {
        "decode": time_call(setting, lambda: imaging.decode_image(encoded)),
        "resize": time_call(setting, lambda: preprocessing.resize(image)),
        "propose": time_call(
            setting, lambda: selective_search(image, "single" if setting.is_quick else "fast", 0)
        ),
    }
    yield "core seconds per image", seconds
    fastest: dict[str, float] = {}
    for name, values in figures.items():
        if " batch " in name and "images_per_second" in values:
            network = name.split()[0]
            fastest[network] = max(fastest.get(network, 0.0), values["images_per_second"])
    # A GPU resizes by itself.
    decoding = seconds["decode"] + (0.0 if setting.on_gpu else seconds["resize"])
    for network, rate in fastest.items():
        yield (
            f"cores that feed {network}",
            {
                "images_per_second": rate,
                "with_stored_proposals": rate * decoding,
                "with_proposals": rate * (decoding + seconds["propose"]),
            },
        )
