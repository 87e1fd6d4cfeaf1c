"""The images of a folder that no annotation names: they are counted, but nothing of the dataset is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline import image_formats, uris
from pipeline.sources.listing import Listing, is_hidden
from pipeline.sources.tally import WITHOUT_ANNOTATION, Repair


def find_unnamed(listing: Listing, named: Iterable[str | None]) -> Iterator[Repair]:
    """A repair for each image of a listing that is not among the `named` paths."""
    used = frozenset(named)
    for path in listing.files:
        is_visible = not any(map(is_hidden, path.split("/")))
        if path not in used and image_formats.is_image_name(path) and is_visible:
            detail = uris.redact_uri(uris.join(listing.root, path))
            yield Repair("image", WITHOUT_ANNOTATION, detail)
