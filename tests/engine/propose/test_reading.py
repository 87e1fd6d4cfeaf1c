"""Whose fault it is that an image cannot be read or searched: its own, its store's or its node's."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pytest

from pipeline import imaging, proposals, storage
from pipeline.engine.propose.reading import Reading
from pipeline.errors import InvalidConfiguration, StorageError
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Report

SETTINGS = ProposalSettings(strategy="single")


@pytest.fixture(autouse=True)
def stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores whose images' names tell what happens when they are read."""
    encoded = imaging.encode_png(np.zeros((30, 40, 3), np.uint8))

    def answer(uri: str) -> bytes:
        if "dead" in uri:
            raise StorageError(f"{uri} cannot be read: no answer")
        if "gone" in uri:
            raise storage.MissingObject(f"{uri} does not exist")
        return encoded

    monkeypatch.setattr(storage, "read", answer)


def _proposed(*uris: str, last_chance: bool) -> list[EncodedImage]:
    reading = Reading(Report(), 60.0, last_chance=last_chance)
    return list(reading.proposed([(uri, uri) for uri in uris], SETTINGS))


def _failures(encoded_images: list[EncodedImage]) -> list[str | None]:
    return [p.failure and f"{p.failure.stage}: {p.failure.error_type}" for p in encoded_images]


def test_a_store_in_trouble_fails_no_image_while_the_piece_has_another_chance() -> None:
    with pytest.raises(StorageError, match="s3://a/dead cannot be read"):
        _proposed("s3://a/1", "s3://a/dead", "s3://a/2", last_chance=False)


@pytest.mark.parametrize(
    ("uris", "failed"),
    [
        (("s3://a/1", "s3://a/dead", "s3://a/gone"), [None, "StorageError", "MissingObject"]),
        (("https://a/1", "https://dead/1", "http://b/1"), [None, "StorageError", None]),
        (("/a/dead", "/a/1"), ["StorageError", None]),
        (("s3://a/dead", "s3://a/dead2"), "a/dead"),
        (("s3://a/1", "s3://b/dead"), "b/dead"),  # that bucket may be down as a whole
        (("s3://a/dead",), "a/dead"),
    ],
)
def test_on_the_last_chance_a_image_fails_alone_where_others_come_through(
    uris: tuple[str, ...], failed: list[str | None] | str
) -> None:
    if isinstance(failed, str):
        with pytest.raises(StorageError, match=failed):
            _proposed(*uris, last_chance=True)
    else:
        told = _failures(_proposed(*uris, last_chance=True))
        assert told == [kind and f"read: {kind}" for kind in failed]


@pytest.mark.parametrize("error", [OSError("no space left"), RuntimeError("no locator")])
def test_a_nodes_trouble_fails_no_image_until_others_come_through(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.zeros((0, 4), np.float32)

    def with_answers(*answers: object) -> None:
        monkeypatch.setattr(proposals, "selective_search", MagicMock(side_effect=answers))

    with_answers(boxes, error)
    with pytest.raises(type(error)):
        _proposed("/1", "/2", last_chance=False)
    with_answers(boxes, error)
    told = _failures(_proposed("/1", "/2", last_chance=True))
    assert told == [None, f"propose: {type(error).__name__}"]
    with_answers(error, error)
    with pytest.raises(type(error)):
        _proposed("/1", "/2", last_chance=True)


def test_settings_that_fit_no_image_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = MagicMock(side_effect=InvalidConfiguration("no such strategy"))
    monkeypatch.setattr(proposals, "selective_search", refuse)
    with pytest.raises(InvalidConfiguration):
        _proposed("/1", last_chance=True)


def test_stored_proposals_are_read_by_the_same_rules() -> None:
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
    with pytest.raises(StorageError):
        list(Reading(Report(), 60.0).stored(list(uris.items()), boxes))
    last = Reading(Report(), 60.0, last_chance=True)
    assert _failures(list(last.stored(list(uris.items()), boxes))) == [None, "read: StorageError"]
