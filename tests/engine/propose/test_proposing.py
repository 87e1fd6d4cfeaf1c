"""An image that is decoded for its proposals: by which rule, and against which facts it is checked."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import proposals
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.imaging import AS_STORED, Decoding
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import EncodedImage, ListedImage
from pipeline.runs.report import Report

SETTINGS = ProposalSettings(strategy="single", min_side=1)


@pytest.fixture
def photo(tmp_path: Path) -> str:
    """An image stored as 40x30 with an EXIF rotation, so displayed as 30x40."""
    exif = Image.Exif()
    exif[0x0112] = 8
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(buffer, "JPEG", exif=exif)
    path = tmp_path / "photo.jpg"
    path.write_bytes(buffer.getvalue())
    return str(path)


@pytest.fixture(autouse=True)
def _search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that compiles nothing."""
    boxes = np.array([[0, 0, 9, 9]], np.float32)
    monkeypatch.setattr(proposals, "selective_search", lambda *_, **__: boxes)


def _propose(
    uri: str,
    stated: tuple[int, int] | None,
    decoding: Decoding = AS_STORED,
    memory_limit: float = math.inf,
) -> EncodedImage:
    (encoded,) = read_and_propose(
        [ListedImage("photo", uri, stated)],
        SETTINGS,
        Report(),
        image_seconds=60.0,
        decoding=decoding,
        memory_limit=memory_limit,
    )
    return encoded


@pytest.mark.parametrize(
    ("stated", "exif", "message"),
    [
        ((40, 30), "ignore", None),
        ((30, 40), "apply", None),
        (None, "apply", None),
        ((30, 40), "ignore", "annotated as 30x40, stored as 40x30: rotated by EXIF?"),
        ((400, 300), "ignore", "annotated as 400x300, stored as 40x30: resized or replaced?"),
        ((40, 30), "apply", "annotated as 40x30, displayed as 30x40: resized or replaced?"),
    ],
)
def test_the_decoded_size_is_compared_with_the_annotations(
    photo: str, stated: tuple[int, int] | None, exif: str, message: str | None
) -> None:
    encoded = _propose(photo, stated, Decoding(exif=exif))  # type: ignore[arg-type]
    assert (encoded.width, encoded.height) == ((40, 30) if exif == "ignore" else (30, 40))
    if message is None:
        assert encoded.failure is None
        assert encoded.boxes is not None
    else:
        assert encoded.failure is not None
        assert (encoded.failure.stage, encoded.failure.error_type) == ("decode", "SizeMismatch")
        assert encoded.failure.message == message
        assert encoded.data is None


def test_an_image_over_the_nodes_memory_is_not_decoded(photo: str) -> None:
    failure = _propose(photo, None, memory_limit=1200 * 130 - 1).failure
    assert failure is not None
    assert (failure.stage, failure.error_type) == ("decode", "ImageTooLarge")
    assert _propose(photo, None, memory_limit=1200 * 130).failure is None


def test_a_file_that_is_none_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    failure = _propose(f"{tmp_path}/zero.jpg", None).failure
    assert failure is not None
    assert (failure.stage, failure.error_type) == ("read", "UnusableObject")
