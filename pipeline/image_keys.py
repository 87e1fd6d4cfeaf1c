"""What a manifest says of an image, as one short text: equal texts mean the same image, decoded alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline import uris
from pipeline.image_members import Member, read_members
from pipeline.imaging import Decoding
from pipeline.manifests import Manifest

DIGITS = 32
"""Hexadecimal digits of a key."""


def compute_image_key(image_id: str, uri: str, member: Member | None, decoding: Decoding) -> str:
    """The key of an image.

    It hashes image_id, uri and member, and how the manifest's images are decoded. Passwords and signatures in
    the URI do not count, since signed links to one image differ from day to day.
    """
    digest = hashlib.sha256()
    for text in (image_id, uris.strip_secrets(uri), decoding.exif, decoding.truncated):
        encoded = text.encode()
        digest.update(b"%d:%b" % (len(encoded), encoded))
    if member is not None:
        digest.update(member.identity)
    return digest.hexdigest()[:DIGITS]


def read_image_keys(manifest: Manifest, limit: int | None = None) -> Iterator[str]:
    """Stream the keys of the first `limit` images of a manifest, in order.

    Raises:
        UnreadableDataset: the manifest is damaged.
    """
    row = 0
    for batch in manifest.read_batches(list(manifest.image_columns), limit):
        members = read_members(batch, manifest.uri, row)
        ids, image_uris = (batch.column(name).to_pylist() for name in ("image_id", "uri"))
        for image_id, uri, member in zip(ids, image_uris, members, strict=True):
            yield compute_image_key(image_id, uri, member, manifest.decoding)
        row += len(batch)
