"""A folder of pictures without annotations, read recursively."""

from __future__ import annotations

from pipeline import images, storage
from pipeline.errors import UnreadableDataset
from pipeline.manifest import ManifestRow
from pipeline.sources.checking import picture_size
from pipeline.sources.dataset import Counts, Dataset, stream_rows


def open_folder(uri: str, skip_invalid: bool = False) -> Dataset:
    """All pictures below a folder, in the order of their paths; `image_id` is the relative path.

    Args:
        uri: of the folder, in any store.
        skip_invalid: leave out files that are no pictures instead of raising.

    Raises:
        UnreadableDataset: the folder holds no pictures, or (while streaming) one is unreadable.
        StorageError: there is no such folder, or the store cannot be reached.
    """
    root = storage.absolute(uri)
    paths = [
        path
        for path in storage.files_below(root)
        if images.is_picture_name(path) and not path.rpartition("/")[2].startswith(".")
    ]
    if not paths:
        endings = " ".join(sorted(images.picture_suffixes()))
        raise UnreadableDataset(
            f"{storage.shown(root)} holds no pictures, at no depth (looked for {endings})"
        )

    def read_row(path: str) -> tuple[ManifestRow, int]:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UnreadableDataset(
                f"{storage.shown(root)}: the file name {path!r} is not UTF-8"
            ) from error
        picture = storage.join(root, path)
        width, height = picture_size(picture)
        return ManifestRow(path, picture, width, height, None), 0

    counts = Counts()
    return Dataset(None, None, stream_rows(paths, read_row, counts, skip_invalid), counts)
