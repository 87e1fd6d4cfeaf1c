"""Options of stores by URI prefix: which URIs they apply to, and that they stay secret."""

from __future__ import annotations

import json

import pytest

from pipeline import storage, store_options
from pipeline.errors import InvalidConfiguration, StorageError
from pipeline.runs.report import Failure
from pipeline.storage_errors import describe_error
from pipeline.store_options import StoreOptions, parse_options

OPTIONS = {
    "s3:": {"endpoint_url": "https://all.example.org"},
    "s3://in/": {"anon": True},
    "s3://in/private": {"key": "the-key-id", "client_kwargs": {"aws_session": ["the-session"]}},
}


def test_the_longest_prefix_that_ends_at_a_name_applies() -> None:
    options = StoreOptions(OPTIONS)
    assert options.find_options("s3://in/a.jpg") == {"anon": True}
    assert options.find_options("s3://in") == {"anon": True}
    assert options.find_options("s3://in/private/a.jpg")["key"] == "the-key-id"
    assert options.find_options("s3://in/privateer/a.jpg") == {"anon": True}
    assert options.find_options("s3://into/a.jpg") == OPTIONS["s3:"]
    assert StoreOptions({"s3:/": {"anon": True}}).find_options("s3://other/x") == {"anon": True}
    assert options.find_options("/in/a.jpg") == {}


def test_neither_repr_nor_store_messages_show_a_secret() -> None:
    options = StoreOptions(OPTIONS)
    assert repr(options) == "StoreOptions(s3:, s3://in, s3://in/private)"
    assert options.list_secrets() == {"the-key-id", "the-session"}


@pytest.fixture
def process_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_options, "_process_options", StoreOptions(OPTIONS))


@pytest.mark.usefixtures("process_options")
def test_error_descriptions_mask_secrets() -> None:
    assert describe_error(OSError("InvalidAccessKeyId: the-key-id")) == "InvalidAccessKeyId: ***"
    assert describe_error(OSError("no answer from https://all.example.org")).endswith(".org")


def test_rows_and_messages_show_no_secret_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA-planted")
    monkeypatch.setenv("FSSPEC_S3", '{"secret": "planted-secret"}')
    error = OSError("InvalidAccessKeyId: AKIA-planted, planted-secret")
    assert describe_error(error) == "InvalidAccessKeyId: ***, ***"
    assert Failure.from_error("read", error).message == "InvalidAccessKeyId: ***, ***"


def test_options_reach_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"s3://a": {"endpoint_url": "http://one"}, "s3://b": {"endpoint_url": "http://two"}}
    monkeypatch.setattr(store_options, "_process_options", StoreOptions(options))
    assert storage.get_filesystem("s3://a/x")[0].endpoint_url == "http://one"
    assert storage.get_filesystem("s3://b/x")[0].endpoint_url == "http://two"
    monkeypatch.setattr(
        store_options, "_process_options", StoreOptions({"s3://a": {"no_such": "hunter22"}})
    )
    with pytest.raises(StorageError, match="unexpected keyword argument 'no_such'") as caught:
        storage.read("s3://a/x")
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"s3://a": {"secret": "hunter22"', "o.json is not JSON"),
        (b"[" * 100_000, "o.json is not JSON"),
        (b"\xff\xfe\xff", "o.json is not JSON"),
        (b'["hunter22"]', "o.json holds no options by URI prefix, expected"),
        (b'{"hunter22": {}}', "o.json: a key is not a URI prefix, expected"),
        (b'{"s3://user:hunter22@a": {}}', "o.json: a key is not a URI prefix, expected"),
        (b'{"s3://a": "hunter22"}', "o.json: s3://a has no options, expected"),
    ],
)
def test_invalid_options_are_rejected_without_showing_them(data: bytes, message: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        parse_options(data, "o.json")
    assert str(caught.value).startswith(message)
    assert "hunter22" not in str(caught.value)
    assert (
        parse_options(json.dumps(OPTIONS).encode(), "o.json").find_options("s3://in")["anon"]
        is True
    )
