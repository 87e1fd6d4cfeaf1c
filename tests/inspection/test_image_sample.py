"""The sample of images that is tried before a dataset is checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import imaging
from pipeline.errors import UnreadableDataset
from pipeline.imaging import AS_STORED
from pipeline.inspection.image_sample import (
    SAMPLED_IMAGES,
    ImageSample,
    SampledImage,
    check_some_decode,
)


def test_a_sample_holds_so_many_images_from_all_of_them() -> None:
    sample = ImageSample()
    for number in range(2000):
        sample.add(str(number), f"/{number}", None)
        assert len(sample.images) == min(number + 1, SAMPLED_IMAGES)
    numbers = [int(image.image_id) for image in sample.images]
    assert len(set(numbers)) == SAMPLED_IMAGES
    assert min(numbers) < 1000 < max(numbers)  # by chance alone missed once in 30,000 seeds


def test_one_image_that_decodes_is_enough(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(imaging.encode_png(np.zeros((8, 8, 3), np.uint8)))
    bad.write_text("<html>")
    images = [SampledImage("<b>", str(bad), None), SampledImage("g", str(good), None)]
    check_some_decode(images, AS_STORED, "train", own_disk=True)
    with pytest.raises(UnreadableDataset, match=r"train: none of the 1 images tried .*image '<b>'"):
        check_some_decode(images[:1], AS_STORED, "train", own_disk=True)


def test_images_that_only_other_machines_have_are_no_error(tmp_path: Path) -> None:
    images = [SampledImage("a", str(tmp_path / "a.png"), None)]
    check_some_decode(images, AS_STORED, "train", own_disk=False)
    with pytest.raises(UnreadableDataset, match=r"a\.png"):
        check_some_decode(images, AS_STORED, "train", own_disk=True)
