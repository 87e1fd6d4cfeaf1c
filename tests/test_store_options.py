"""Options of stores by URI prefix: whose they are, and that they stay secret."""

from __future__ import annotations

import json

import pytest

from pipeline import storage, store_options
from pipeline.errors import InvalidConfiguration, StorageError
from pipeline.storage_errors import reason
from pipeline.store_options import StoreOptions, parse

TOLD = {
    "s3:": {"endpoint_url": "https://all.example.org"},
    "s3://in/": {"anon": True},
    "s3://in/private": {"key": "the-key-id", "client_kwargs": {"aws_session": ["the-session"]}},
}


def test_the_longest_prefix_that_ends_where_a_name_ends() -> None:
    options = StoreOptions(TOLD)
    assert options.of("s3://in/a.jpg") == {"anon": True}
    assert options.of("s3://in") == {"anon": True}
    assert options.of("s3://in/private/a.jpg")["key"] == "the-key-id"
    assert options.of("s3://in/privateer/a.jpg") == {"anon": True}
    assert options.of("s3://into/a.jpg") == TOLD["s3:"]
    assert StoreOptions({"s3:/": {"anon": True}}).of("s3://other/x") == {"anon": True}
    assert options.of("/in/a.jpg") == {}


def test_neither_repr_nor_a_stores_words_show_a_secret() -> None:
    options = StoreOptions(TOLD)
    assert repr(options) == "StoreOptions(s3:, s3://in, s3://in/private)"
    assert options.secrets() == {"the-key-id", "the-session"}
    assert options.blotted("no the-key-id at https://all.example.org") == (
        "no *** at https://all.example.org"
    )


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_options, "_used", StoreOptions(TOLD))


@pytest.mark.usefixtures("used")
def test_reasons_are_blotted() -> None:
    assert reason(OSError("InvalidAccessKeyId: the-key-id")) == "InvalidAccessKeyId: ***"


def test_options_reach_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"s3://a": {"endpoint_url": "http://one"}, "s3://b": {"endpoint_url": "http://two"}}
    monkeypatch.setattr(store_options, "_used", StoreOptions(told))
    assert storage.filesystem("s3://a/x")[0].endpoint_url == "http://one"
    assert storage.filesystem("s3://b/x")[0].endpoint_url == "http://two"
    monkeypatch.setattr(store_options, "_used", StoreOptions({"s3://a": {"no_such": "hunter22"}}))
    with pytest.raises(StorageError, match="unexpected keyword argument 'no_such'") as caught:
        storage.read("s3://a/x")
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b'{"s3://a": {"secret": "hunter22"', "o.json is not JSON"),
        (b'["hunter22"]', "o.json holds no options by URI prefix, expected"),
        (b'{"hunter22": {}}', "o.json: a key is no URI prefix, expected"),
        (b'{"s3://user:hunter22@a": {}}', "o.json: a key is no URI prefix, expected"),
        (b'{"s3://a": "hunter22"}', "o.json: s3://a has no options, expected"),
    ],
)
def test_what_is_no_such_file_is_told_without_its_content(data: bytes, told: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse(data, "o.json")
    assert str(caught.value).startswith(told)
    assert "hunter22" not in str(caught.value)
    assert parse(json.dumps(TOLD).encode(), "o.json").of("s3://in")["anon"] is True
