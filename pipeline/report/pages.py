"""Puts the pages of a report where they belong, the index last."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

from pipeline import storage, uris
from pipeline.report.thumbnails import FOLDER as THUMBNAILS

INDEX_NAME = "index.html"
_WRITERS = 8


def put_pages(report: str, pages: Iterator[tuple[str, bytes]], thumbnails: Collection[str]) -> None:
    """Put all pages, the index after all others, and remove pages and thumbnails of an earlier report.

    Args:
        report: the report's folder; any fsspec URI.
        pages: addresses and contents; INDEX_NAME is the last.
        thumbnails: the paths, in the report's folder, of the thumbnails that the pages show.

    Raises:
        StorageError: the report cannot be written.
    """
    with ThreadPoolExecutor(_WRITERS) as threads:
        puts = []
        written = set()
        for address, content in pages:
            written.add(address)
            if address == INDEX_NAME:
                break
            puts.append(threads.submit(storage.put, uris.join(report, address), content))
        for put in puts:
            put.result()
    storage.put(uris.join(report, INDEX_NAME), content)
    _remove_others(report, {*written, *thumbnails})


def _remove_others(report: str, kept: Collection[str]) -> None:
    """Remove what an earlier report had and this one has not."""
    for folder, suffix in (("galleries", ".html"), ("classes", ".html"), (THUMBNAILS, ".jpg")):
        for name in storage.list_names(uris.join(report, folder)):
            if name.endswith(suffix) and f"{folder}/{name}" not in kept:
                storage.remove(uris.join(report, folder, name))
