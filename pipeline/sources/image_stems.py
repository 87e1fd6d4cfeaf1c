"""Images below a folder by the stem of their file: their name without folder and ending."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pipeline import image_formats
from pipeline.errors import UnreadableDataset
from pipeline.sources.listing import Listing


class ImageStems:
    """Looks up images by a name that has neither folder nor ending, such as Open Images' ids."""

    def __init__(self, listing: Listing) -> None:
        """Look up among the images of the listing."""
        by_stem: dict[str, str] = {}
        self._ambiguous: dict[str, list[str]] = defaultdict(list)
        for path in filter(image_formats.is_image_name, listing.files):
            stem = _normalise(path.rpartition("/")[2].rpartition(".")[0])
            first = by_stem.setdefault(stem, path)
            if first != path:
                self._ambiguous[stem].append(path)
        self._by_stem = by_stem

    def iterate_others(self, stems: Iterable[str]) -> Iterator[str]:
        """The paths of the images whose stem is not among `stems`."""
        listed = set(map(_normalise, stems))
        return (path for stem, path in self._by_stem.items() if stem not in listed)

    def find(self, stem: str, where: str) -> str | None:
        """The path of the image of this stem, or None.

        Args:
            stem: in composed or decomposed Unicode.
            where: what errors name.

        Raises:
            UnreadableDataset: several images have the stem.
        """
        stem = _normalise(stem)
        path = self._by_stem.get(stem)
        if stem in self._ambiguous:
            names = ", ".join(map(repr, [path, *self._ambiguous[stem]]))
            raise UnreadableDataset(f"{where} may be any of {names:.300}")
        return path


def _normalise(stem: str) -> str:
    return unicodedata.normalize("NFC", stem)
