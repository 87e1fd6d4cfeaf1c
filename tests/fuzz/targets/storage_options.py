"""The JSON file of --storage-options."""

from __future__ import annotations

from pathlib import Path
from random import Random

from pipeline import store_options
from pipeline.storage_errors import describe_error
from pipeline.store_options import StoreOptions, parse_options
from tests.fuzz.mutators.json_mutator import encode_json, mutate_json
from tests.fuzz.target import Target

_SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
_CONTENT = {
    "s3://bucket": {
        "key": "AKIA0123456789",
        "secret": _SECRET,
        "endpoint_url": "https://s3.example.org",
    },
    "s3://public": {"anon": True},
    "gs:": {"token": {"client": "x" * 20, "private_key": _SECRET}, "project": "p"},
}
_URIS = ("s3://bucket/a.jpg", "s3://bucket2/a.jpg", "s3://public", "gs://a/b", "/local/a", "")


def _write(folder: Path, random: Random) -> str:
    changed, change = mutate_json(_CONTENT, random)
    data, form = encode_json(changed, random)
    (folder / "stores.json").write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _read(folder: Path) -> StoreOptions:
    options = parse_options((folder / "stores.json").read_bytes(), "stores.json")
    for uri in _URIS:
        options.find_options(uri)
    return options


def _find_fault(folder: Path, answer: StoreOptions) -> str | None:
    store_options.set_options(answer)
    try:
        described = describe_error(OSError(f"the store rejects {_SECRET}"))
    finally:
        store_options.set_options(StoreOptions({}))
    is_there = _SECRET.encode() in (folder / "stores.json").read_bytes()
    if is_there and _SECRET in described and _SECRET in answer.list_secrets():
        return f"a message shows the secret: {described}"
    if _SECRET in repr(answer):
        return f"repr shows the secret: {answer!r:.200}"
    if any(not isinstance(answer.find_options(uri), dict) for uri in _URIS):
        return "options are no mapping"
    if answer.find_options("s3://bucket2/a.jpg").get("secret") == _SECRET:
        return "another bucket has the options of s3://bucket"
    return None


TARGETS = (Target("storage_options", _write, _read, _find_fault, secrets=(_SECRET,)),)
