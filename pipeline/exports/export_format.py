"""What a format does: it turns images into files of their own, or into texts that become one file.

The texts of an image belong to named streams. A worker writes the texts of its shard; the driver then joins
those of all shards, in the order of the manifest, into whole files. So memory holds one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pipeline.exports.image_batch import ImageBatch

ReadStream = Callable[[str], Iterator[bytes]]
"""Yields the texts of a stream, image by image, without empty ones."""


class ExportFormat(Protocol):
    """One format, with everything about a dataset that its files need."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that `encode` writes."""

    def encode(self, batch: ImageBatch) -> Mapping[str, Sequence[bytes]]:
        """For each stream one text per image; empty for an image that it does not hold."""

    def list_files(self, batch: ImageBatch) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a shard: path below the output, and content."""

    def assemble(self, read: ReadStream) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Yield the files that hold the whole dataset: path below the output, and content in pieces."""


def join_texts(
    texts: Iterable[bytes], start: bytes, separator: bytes, end: bytes
) -> Iterator[bytes]:
    """Yield a start, the texts with a separator between them, and an end."""
    yield start
    for index, text in enumerate(texts):
        yield separator + text if index else text
    yield end


def group_texts(batch: ImageBatch, texts: Sequence[str], separator: str) -> list[bytes]:
    """The texts `(N,)` of a batch's boxes joined image by image; empty for an image without boxes."""
    return [separator.join(texts[batch.slice_boxes(k)]).encode() for k in range(len(batch))]
