"""Keys of images: equal for the same image decoded alike, different otherwise."""

from __future__ import annotations

from pathlib import Path

from pipeline.image_keys import DIGITS, compute_image_key, read_image_keys
from pipeline.image_members import Member
from pipeline.imaging import AS_STORED, Decoding
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest

KEY = compute_image_key("a", "s3://b/a.jpg", None, AS_STORED)


def test_anything_that_makes_another_image_makes_another_key() -> None:
    others = {
        compute_image_key("b", "s3://b/a.jpg", None, AS_STORED),
        compute_image_key("a", "s3://b/b.jpg", None, AS_STORED),
        compute_image_key("a", "s3://b/a.jpg", Member(offset=512, length=9), AS_STORED),
        compute_image_key("a", "s3://b/a.jpg", None, Decoding(exif="apply")),
        compute_image_key("a", "s3://b/a.jpg", None, Decoding(truncated="accept")),
        compute_image_key("as3://", "b/a.jpg", None, AS_STORED),
    }
    assert len(others | {KEY}) == 7
    assert all(len(key) == DIGITS and int(key, 16) for key in others)


def test_the_signature_of_a_link_does_not_count() -> None:
    links = [f"https://host/a.jpg?X-Amz-Signature={name}" for name in ("12ab" * 8, "34cd" * 8)]
    assert len({compute_image_key("a", link, None, AS_STORED) for link in links}) == 1


def test_the_keys_of_a_manifest_come_in_its_order(tmp_path: Path) -> None:
    uri = str(tmp_path / "manifest.parquet")
    names = [f"i{row}" for row in range(5000)]
    write_manifest(uri, (ManifestRow(n, f"/{n}", 1, 1, None) for n in names), None)
    keys = list(read_image_keys(open_manifest(uri), 4000))
    assert len(set(keys)) == len(keys) == 4000
    assert keys[3000] == compute_image_key("i3000", "/i3000", None, AS_STORED)
