"""Whose fault it is if an image cannot be read or searched: its own, its store's or its node's."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pytest

from pipeline import imaging, proposals, storage
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.propose.reading import read_with_stored_proposals
from pipeline.errors import InvalidConfiguration, MissingObject, StorageError
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import EncodedImage, ListedImage
from pipeline.runs.report import Report

SETTINGS = ProposalSettings(strategy="single")


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores in which an image's name decides what reading it does."""
    encoded = imaging.encode_png(np.zeros((30, 40, 3), np.uint8))

    def answer(uri: str, max_bytes: int | None = None) -> bytes:
        if "dead" in uri:
            raise StorageError(f"{uri} cannot be read: no answer")
        if "gone" in uri:
            raise MissingObject(f"{uri} does not exist")
        return encoded

    monkeypatch.setattr(storage, "read", answer)


def _propose(*uris: str, is_last_chance: bool) -> list[EncodedImage]:
    rows = [ListedImage(uri, uri) for uri in uris]
    return list(
        read_and_propose(
            rows, SETTINGS, Report(), image_seconds=60.0, is_last_chance=is_last_chance
        )
    )


def _failures(encoded_images: list[EncodedImage]) -> list[str | None]:
    return [p.failure and f"{p.failure.stage}: {p.failure.error_type}" for p in encoded_images]


def test_a_failing_store_fails_no_image_while_the_piece_has_another_chance() -> None:
    with pytest.raises(StorageError, match="s3://a/dead cannot be read"):
        _propose("s3://a/1", "s3://a/dead", "s3://a/2", is_last_chance=False)


@pytest.mark.parametrize(
    ("uris", "failed"),
    [
        (("s3://a/1", "s3://a/dead", "s3://a/gone"), [None, "StorageError", "MissingObject"]),
        (("https://a/1", "https://dead/1", "http://b/1"), [None, "StorageError", None]),
        (("https://dead/1", "s3://dead/2", "/dead/3"), "dead/1"),
        (("/a/dead", "/a/1"), ["StorageError", None]),
        (("s3://a/dead", "s3://a/dead2"), "a/dead"),
        (("s3://a/1", "s3://b/dead"), [None, "StorageError"]),
        (("/a/1", "gs://dead/1", "/a/2", "gs://dead/2"), [None, "StorageError"] * 2),
        (("s3://a/dead",), "a/dead"),
    ],
)
def test_on_the_last_chance_an_image_fails_alone_if_others_succeed(
    uris: tuple[str, ...], failed: list[str | None] | str
) -> None:
    if isinstance(failed, str):
        with pytest.raises(StorageError, match=failed):
            _propose(*uris, is_last_chance=True)
    else:
        failures = _failures(_propose(*uris, is_last_chance=True))
        assert failures == [kind and f"read: {kind}" for kind in failed]


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("no locator")])
def test_an_error_of_the_node_fails_no_image_until_others_succeed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.zeros((0, 4), np.float32)

    def with_answers(*answers: object) -> None:
        monkeypatch.setattr(proposals, "selective_search", MagicMock(side_effect=answers))

    with_answers(boxes, error)
    with pytest.raises(type(error)):
        _propose("/1", "/2", is_last_chance=False)
    with_answers(boxes, error)
    failures = _failures(_propose("/1", "/2", is_last_chance=True))
    assert failures == [None, f"propose: {type(error).__name__}"]
    with_answers(error, error)
    with pytest.raises(type(error)):
        _propose("/1", "/2", is_last_chance=True)


def test_settings_that_fit_no_image_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    search = MagicMock(side_effect=InvalidConfiguration("no such strategy"))
    monkeypatch.setattr(proposals, "selective_search", search)
    with pytest.raises(InvalidConfiguration):
        _propose("/1", is_last_chance=True)


def test_images_with_stored_proposals_follow_the_same_rules() -> None:
    uris = {"a": "s3://b/1", "b": "s3://b/dead"}
    boxes = pa.table(
        {
            "image_id": list(uris),
            "width": [40, 40],
            "height": [30, 30],
            "boxes": pa.array([[[0, 0, 9, 9]]] * 2, pa.list_(pa.list_(pa.float32(), 4))),
            "status": ["ok", "ok"],
            "error_type": pa.nulls(2, pa.string()),
            "error_message": pa.nulls(2, pa.string()),
        }
    )
    rows = [ListedImage(*item) for item in uris.items()]
    with pytest.raises(StorageError):
        list(read_with_stored_proposals(rows, boxes, Report()))
    encoded_images = read_with_stored_proposals(rows, boxes, Report(), is_last_chance=True)
    assert _failures(list(encoded_images)) == [None, "read: StorageError"]
