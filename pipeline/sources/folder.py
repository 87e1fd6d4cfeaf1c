"""A folder of images without annotations, read recursively."""

from __future__ import annotations

from pipeline import imaging, storage
from pipeline.errors import UnreadableDataset
from pipeline.manifests import ManifestRow
from pipeline.sources.checking import image_size
from pipeline.sources.dataset import Counts, Dataset, stream_rows


def open_folder(uri: str, skip_invalid: bool = False) -> Dataset:
    """All images below a folder, in the order of their paths; `image_id` is the relative path.

    Args:
        uri: of the folder, in any store.
        skip_invalid: leave out files that are no images instead of raising.

    Raises:
        UnreadableDataset: the folder holds no images, or (while streaming) one is unreadable.
        StorageError: there is no such folder, or the store cannot be reached.
    """
    root = storage.absolute(uri)
    paths = [
        path
        for path in storage.files_below(root)
        if imaging.is_image_name(path) and not path.rpartition("/")[2].startswith(".")
    ]
    if not paths:
        endings = " ".join(sorted(imaging.image_suffixes()))
        raise UnreadableDataset(
            f"{storage.shown(root)} holds no images, at no depth (looked for {endings})"
        )

    def read_row(path: str) -> tuple[ManifestRow, int]:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise UnreadableDataset(
                f"{storage.shown(root)}: the file name {path!r} is not UTF-8"
            ) from error
        image = storage.join(root, path)
        width, height = image_size(image)
        return ManifestRow(path, image, width, height, None), 0

    counts = Counts()
    return Dataset(None, None, stream_rows(paths, read_row, counts, skip_invalid), counts)
