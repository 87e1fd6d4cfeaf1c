"""A folder of images without annotations, read recursively."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from pipeline import image_formats, uris
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.dataset import Dataset, ReadImage, stream_rows
from pipeline.sources.listing import list_files
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.sizes import settle_size
from pipeline.sources.tally import Tally


def open_folder(uri: str, options: SourceOptions = DEFAULT) -> Dataset:
    """Open all images below a folder, in the order of their paths; `image_id` is the relative path.

    Args:
        uri: the folder, in any store.
        options: how many files may be unreadable, and the orientation of the sizes.

    Raises:
        UnreadableDataset: the folder holds no images, or (while streaming) too many are unreadable.
        StorageError: there is no such folder, or the store cannot be reached.
    """
    listing = list_files(uri, hidden=False)
    tally = Tally()
    tally.files_left_out.update(listing.left_out)
    paths = list(_iterate_images(listing.files, tally))
    if not paths:
        endings = " ".join(sorted(image_formats.IMAGE_SUFFIXES))
        raise UnreadableDataset(
            f"{uris.redact_uri(listing.root)} holds no images at any depth (expected file endings: "
            f"{endings}); {tally.describe_repairs()}"
        )

    root = listing.root
    del listing  # read_image may be sent to other processes

    def read_image(path: str) -> ReadImage:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UnreadableDataset(
                f"{uris.redact_uri(root)}: the file name {path!a} is not UTF-8"
            ) from error
        image = uris.join(root, path)
        settled = settle_size(image, (0, 0), (), options, uris.redact_uri(image))
        row = ManifestRow(path, image, settled.width, settled.height, None)
        return ReadImage(row, settled.repairs)

    return Dataset(None, None, stream_rows(paths, read_image, tally, options), tally)


def _iterate_images(files: Iterable[str], tally: Tally) -> Iterator[str]:
    """The files with the ending of an image; the others are counted."""
    for path in files:
        if image_formats.is_image_name(path):
            yield path
        else:
            tally.files_left_out[_describe_ending(path)] += 1


def _describe_ending(path: str) -> str:
    return ascii(posixpath.splitext(path)[1].lower())[1:-1] or "no ending"
