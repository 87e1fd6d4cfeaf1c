"""URIs with passwords, signatures, chains and odd characters, and paths that no store takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline import storage, uris
from pipeline.errors import PipelineError
from tests.fuzz.mutators.values import TEXTS, shorten
from tests.fuzz.target import Target

SECRET = "SeCrEt0123456789abcdefSeCrEt0123"
_STORES = ("s3", "gs", "https", "http", "abfs", "memory", "file", "nosuch", "zip://a.jpg::s3", "")
_PIECES = (
    "a",
    "a/",
    "::",
    ":",
    "?",
    "#",
    "&",
    "&a=b",
    "%20",
    " ",
    "//",
    "./",
    "../",
    "~",
    "=",
    "[",
)


@dataclass(frozen=True)
class _Answer:
    """What the project makes of a URI."""

    shown: str
    text: str
    stored: str
    absolute: str
    joined: str
    """A file below the URI."""


def _write(folder: Path, random: Random) -> str:
    store = random.choice(_STORES)
    user = random.choice(("", "", f"user:{SECRET}@", f":{SECRET}@", f"user:{SECRET}/{SECRET}@"))
    if "http" in store:  # in a web address, a slash always ends the user
        user = user.replace("/", "")
    path = "".join(random.choices(_PIECES, k=random.randint(0, 8)))
    path += random.choice(TEXTS) if random.random() < 0.3 else ""
    if random.random() < 0.1:
        path = random.choice(_PIECES) * random.choice((2_000, 20_000))
    query = random.choice(("", "", f"?X-Amz-Signature={SECRET}", f"?a=b&token={SECRET}", "?id=7"))
    if (
        user or "=" + SECRET in query
    ):  # anything else behind `@` or `?` would make another user or query
        path = (
            path.replace("?", "")
            .replace("@", "")
            .replace(" ", "")
            .replace("\n", "")
            .replace("\x00", "")
        )
        store = store or "s3"
    uri = f"{store}://{user}host/{path}{query}" if store else f"{folder}/{path}"
    (folder / "uri.json").write_text(json.dumps(uri))
    return shorten(uri)


def _read(folder: Path) -> _Answer:
    uri = json.loads((folder / "uri.json").read_text())
    absolute = uris.make_absolute(uri)
    if uris.get_protocol(uri) in ("file", "memory", "nosuch"):
        for use in (storage.read, storage.exists, storage.list_names, storage.get_size):
            _use(use, uri)
    return _Answer(
        uris.redact_uri(uri),
        uris.redact_text(f"cannot read {uri} and {uri}"),
        uris.strip_secrets(uri),
        absolute,
        uris.join(absolute, "part.parquet"),
    )


def _use(use: object, uri: str) -> None:
    """Use a store, whose named errors are as right as an answer unless they show a secret."""
    try:
        use(uri)  # type: ignore[operator]
    except PipelineError as error:
        if SECRET in str(error):
            raise


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    for name in ("shown", "text", "stored"):
        if SECRET in getattr(answer, name):
            return f"{name} has the secret: {getattr(answer, name)!r:.200}"
    if uris.make_absolute(answer.absolute) != answer.absolute:
        return f"{answer.absolute!r:.200} is not absolute"
    if not answer.joined.endswith("part.parquet"):
        return f"a file below it is {answer.joined!r:.200}"
    return None


TARGETS = (Target("uri", _write, _read, _find_fault, secrets=(SECRET,)),)
