"""Signatures: ImageHash's own hash, one for each view, and what a missing package says."""

from __future__ import annotations

import sys

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InvalidConfiguration
from pipeline.inspection import signature
from pipeline.inspection.signature import VIEWS, compute_signature
from tests.inspection.signed_images import draw_smooth


def test_the_first_hash_is_that_of_imagehash() -> None:
    image = draw_smooth(1, 128, 128)
    own = int(compute_signature(image).hashes[0])
    theirs = int(str(imagehash.phash(Image.fromarray(image))), 16)
    assert (own ^ theirs).bit_count() <= 4  # the grey image is made before it is reduced


def test_the_second_hash_is_that_of_the_mirrored_image() -> None:
    image = draw_smooth(1)
    mirrored = compute_signature(np.ascontiguousarray(image[:, ::-1]))
    assert (int(compute_signature(image).hashes[1]) ^ int(mirrored.hashes[0])).bit_count() <= 2


def test_every_view_has_a_hash_and_a_name() -> None:
    assert len(compute_signature(draw_smooth(2)).hashes) == len(VIEWS) == 22
    assert {view.name for view in VIEWS} == {
        "as it is",
        "mirrored",
        "cropped",
        "cropped and mirrored",
    }


def test_brightness_and_contrast_are_those_of_the_grey_pixels() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 200
    signed = compute_signature(image)
    assert signed.brightness == pytest.approx(100, abs=1)
    assert signed.contrast == pytest.approx(100, abs=2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(InvalidConfiguration, match="needs ImageHash: run pip install"):
        signature.check_installed()
