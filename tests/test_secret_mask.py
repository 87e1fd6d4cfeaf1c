"""Planted secrets in every spelling, and texts that must stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote_plus

import fsspec
import pytest

from pipeline import store_options
from pipeline.secret_mask import SecretMask

SECRET = 'hunter2/with "quotes"+&'
KEY_FILE = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIB\n"


def test_secrets_of_the_environment_are_hidden_in_every_spelling() -> None:
    mask = SecretMask({"AWS_SECRET_ACCESS_KEY": SECRET, "HOME": "/home/someone"})
    for spelling in (SECRET, quote_plus(SECRET), json.dumps(SECRET), repr(SECRET)):
        hidden = mask.hide(f"before {spelling} after /home/someone")
        assert "hunter2" not in hidden
        assert hidden.startswith("before ")
        assert hidden.endswith(" after /home/someone")


@pytest.mark.parametrize(
    "name",
    ["RAY_AUTH_TOKEN", "MY_PASSWORD", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_SAS", "x_pwd"],
)
def test_names_that_suggest_a_secret(name: str) -> None:
    assert SecretMask({name: "hunter2-hunter2"}).hide("is hunter2-hunter2!") == "is ***!"


def test_short_values_are_words_not_secrets() -> None:
    text = "mode token, no key"
    assert SecretMask({"RAY_AUTH_MODE": "token", "API_KEY": "key"}).hide(text) == text


def test_places_are_not_secrets(tmp_path: Path) -> None:
    names = {"PWD": "/no-such-folder", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path)}
    text = f"in /no-such-folder and {tmp_path}"
    assert SecretMask(names).hide(text) == text
    assert SecretMask({"SECRET_KEY": "/looks/like+a/path"}).hide("/looks/like+a/path") == "***"


def test_a_key_of_several_lines_is_hidden_line_by_line() -> None:
    mask = SecretMask({"GCS_CREDENTIALS": KEY_FILE})
    assert "MIIEvQIBADANBgkqhkiG9w0BAQ" not in mask.hide("line MIIEvQIBADANBgkqhkiG9w0BAQ of it")


def test_options_of_stores_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"s3://b": {"key": "user-name", "client_kwargs": {"secret": "hunter2-hunter2"}}}
    monkeypatch.setattr(store_options, "_process_options", store_options.StoreOptions(options))
    fsspec_json = json.dumps({"secret": "swordfish-one", "endpoint_url": "https://s3.example.org"})
    monkeypatch.setitem(fsspec.config.conf, "s3", {"secret": "swordfish-two"})
    mask = SecretMask({"FSSPEC_S3": fsspec_json})
    text = "user-name hunter2-hunter2 swordfish-one swordfish-two https://s3.example.org"
    assert mask.hide(text) == "*** *** *** *** https://s3.example.org"


def test_passwords_and_signatures_in_uris_are_hidden_and_colours_removed() -> None:
    mask = SecretMask({})
    text = "\x1b[31mread s3://user:pass@host/a and https://host/b?X-Amz-Signature=abcdef\x1b[0m"
    assert mask.hide(text) == "read s3://host/a and https://host/b"


def test_a_password_of_a_url_is_hidden_outside_its_url_too() -> None:
    mask = SecretMask({"HTTPS_PROXY": "http://someone:hunter%202hunter@proxy:3128"})
    assert (
        mask.hide("login of someone with hunter 2hunter failed")
        == "login of someone with *** failed"
    )
    assert mask.hide("hunter%202hunter at proxy:3128") == "*** at proxy:3128"
    assert SecretMask({"X": "http://proxy:3128"}).hide("at proxy:3128") == "at proxy:3128"
