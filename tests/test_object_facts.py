"""What stores say of an object: its size, and its MD5 where the text can be one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pipeline import storage
from pipeline.errors import MissingObject
from pipeline.object_facts import ObjectFacts, read_object_facts

MD5 = hashlib.md5(b"abc").hexdigest()


def test_a_local_file_has_a_size_and_no_md5(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"abc")
    assert read_object_facts(str(path)) == ObjectFacts(3, None)
    with pytest.raises(MissingObject, match="does not exist"):
        read_object_facts(str(tmp_path / "none"))


class _Store:
    def __init__(self, info: dict[str, Any]) -> None:
        self._info = info

    def invalidate_cache(self) -> None: ...

    def info(self, path: str) -> dict[str, Any]:
        assert path == "b/a"
        return self._info


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"size": 3, "ETag": f'"{MD5}"'}, ObjectFacts(3, MD5)),
        ({"size": 3, "ETag": f'"{MD5}-2"'}, ObjectFacts(3, None)),  # uploaded in pieces
        ({"size": 3, "md5Hash": "kAFQmDzST7DWlj99KOF/cg=="}, ObjectFacts(3, MD5)),
        ({"size": 3, "md5Hash": "?"}, ObjectFacts(3, None)),
        ({"size": None}, ObjectFacts(None, None)),
    ],
)
def test_an_md5_is_only_what_can_be_one(
    info: dict[str, Any], expected: ObjectFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "get_filesystem", lambda uri: (_Store(info), "b/a"))
    assert read_object_facts("s3://b/a") == expected


def test_the_md5_of_an_object_in_s3_is_its_own(s3_folder: str) -> None:
    uri = f"{s3_folder}/facts"
    storage.put(uri, b"abc")
    assert read_object_facts(uri) == ObjectFacts(3, MD5)
