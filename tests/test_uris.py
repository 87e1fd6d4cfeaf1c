from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline import uris


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("http://host:8080/a", "http://host:8080/a"),
        ("https://host/a?sig=SECRET", "https://host/a"),
        ("https://host/my gone.jpg?sv=1&sig=SECRET", "https://host/my gone.jpg"),
        ("ftp://user@host/a", "ftp://host/a"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("gs://bucket/a?b=1.jpg", "gs://bucket/a?b=1.jpg"),
        ("az://container/a.jpg?sv=1&sig=SECRET", "az://container/a.jpg"),
        ("simplecache::https://host/a?b", "simplecache::https://host/a"),
        ("/home/me/what?.jpg", "/home/me/what?.jpg"),
        ("abfs://container@account.net/a.jpg", "abfs://container@account.net/a.jpg"),
        ("abfs://user:word@account.net/a.jpg", "abfs://account.net/a.jpg"),
        ("zip://a.jpg::s3://bucket/a@b.zip", "zip://a.jpg::s3://bucket/a@b.zip"),
    ],
)
def test_messages_show_no_user_password_or_query(uri: str, redacted: str) -> None:
    assert uris.redact_uri(uri) == redacted


@pytest.mark.parametrize(
    ("uri", "stripped"),
    [
        ("/data/what?.jpg", "/data/what?.jpg"),
        ("file:///d/a?b.jpg", "file:///d/a?b.jpg"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("s3://key:se/cret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("abfs://container@account.net/a.jpg", "abfs://container@account.net/a.jpg"),
        ("zip://a.jpg::s3://bucket/a@b.zip", "zip://a.jpg::s3://bucket/a@b.zip"),
        ("https://host:8080/a@b.jpg?id=7", "https://host:8080/a@b.jpg?id=7"),
        ("https://user:word@host/image?id=7&size=2", "https://host/image?id=7&size=2"),
        ("https://host/a.jpg?X-Amz-Date=1&X-Amz-Signature=2", "https://host/a.jpg"),
        ("https://host/a.jpg?id=7&sig=2", "https://host/a.jpg"),
        ("https://host/a.jpg?access_token=2", "https://host/a.jpg"),
        ("simplecache::https://host/a.jpg?Signature=2", "simplecache::https://host/a.jpg"),
        ("zip://a.jpg::https://h/x.zip?X-Amz-Credential=2", "zip://a.jpg::https://h/x.zip"),
        ("https://host/my gone.jpg?api-key=2", "https://host/my gone.jpg"),
        ("https://host/a.jpg?hdnea=2", "https://host/a.jpg"),
        ("https://host/a.jpg?auth=2", "https://host/a.jpg"),
        (f"https://host/a.jpg?id={'f' * 32}", "https://host/a.jpg"),
        ("abfs://c@account.net/a.jpg?sig=2", "abfs://c@account.net/a.jpg"),
        ("webdav://host/a.jpg?token=2", "webdav://host/a.jpg"),
    ],
)
def test_rows_hold_the_uri_without_its_secrets(uri: str, stripped: str) -> None:
    assert uris.strip_secrets(uri) == stripped


def test_texts_lose_the_secrets_of_all_their_uris() -> None:
    text = "no s3://key:word@b/x after https://h/y?sig=2 and /home/a?b"
    assert uris.redact_text(text) == "no s3://b/x after https://h/y and /home/a?b"


def test_paths_become_absolute_and_folders_lose_their_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert uris.make_absolute("out/x") == str(tmp_path / "out" / "x")
    assert uris.make_absolute(f"file://{tmp_path}/x/") == str(tmp_path / "x")
    assert uris.make_absolute("s3://bucket/x/") == "s3://bucket/x"
    assert uris.make_absolute("memory://") == "memory://"


def test_names_are_joined_with_one_slash() -> None:
    assert uris.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert uris.join("memory://", "a") == "memory://a"
    assert uris.join("/", "a") == "/a"


def test_a_path_has_the_protocol_file() -> None:
    assert uris.get_protocol("gs://b") == "gs"
    assert uris.get_protocol("/a/b") == "file"


@pytest.mark.parametrize(
    ("uri", "chain"),
    [
        ("/data/cam::01.jpg", False),
        ("s3://bucket/cam::01.jpg", False),
        ("s3://bucket/zip::a.jpg", False),
        ("a.jpg", False),
        ("zip://a.jpg::s3://bucket/a.zip", True),
        ("simplecache::https://host/a.jpg", True),
    ],
)
def test_colons_chain_only_after_a_protocol_that_chains(uri: str, chain: bool) -> None:
    assert uris.is_chain(uri) == chain


def test_the_home_of_an_unknown_user_is_a_name() -> None:
    assert uris.make_absolute("~no-such-user/p") == str(Path.cwd() / "~no-such-user" / "p")


def test_texts_keep_question_marks_of_names() -> None:
    text = "s3://b/what?.jpg and https://host/a?b and az://c/a?sig=SECRET end"
    assert uris.redact_text(text) == "s3://b/what?.jpg and https://host/a and az://c/a end"


@pytest.mark.parametrize(
    "piece", ["a", "?", "&ab", "a=", "token", "a://", "a://b:", "x@y:", '"://a?']
)
def test_time_is_linear_in_the_length_of_a_uri(piece: str) -> None:
    uri = "s3://user:hidden@b/" + piece * 100_000
    began = time.process_time()
    texts = (uris.redact_uri(uri), uris.redact_text(f"{uri} {uri}"), uris.strip_secrets(uri))
    assert time.process_time() - began < 5
    assert not any("hidden" in text for text in texts)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ('open "s3://b/a?token=1", then http://h/x?y', 'open "s3://b/a", then http://h/x'),
        ("s3://b/a?b and gs://c?key=5&d=6 e", "s3://b/a?b and gs://c e"),
        ('{"a": "https://h?x=1", "b": "s3://u:p@b?c"}', '{"a": "https://h", "b": "s3://b?c"}'),
    ],
)
def test_several_uris_of_a_text_are_redacted_each(text: str, redacted: str) -> None:
    assert uris.redact_text(text) == redacted
